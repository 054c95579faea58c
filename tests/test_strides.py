"""Where tensors lie in memory: what `strides` says of views is what torch's own strides say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rankopt.expressions import Expr, Stage
from rankopt.program import Program
from rankopt.strides import move, ranks, reshape_copies

SHAPE = (6, 4, 5)
View = Callable[[Program, Expr], Expr]

VIEWS: dict[str, View] = {
    "as it is": lambda p, x: x,
    "permuted": lambda p, x: p.permute(x, [2, 0, 1]),
    "merged in order": lambda p, x: p.view(x, (24, 5)),
    "merged after permuting whole blocks": lambda p, x: p.view(p.permute(x, [2, 0, 1]), (5, 24)),
    "split after permuting": lambda p, x: p.view(p.permute(x, [1, 0, 2]), (2, 2, 6, 5)),
    "merged where memory is apart": lambda p, x: p.view(p.permute(x, [1, 0, 2]), (24, 5)),
    "regrouped across a permutation": lambda p, x: p.view(p.permute(x, [1, 2, 0]), (20, 2, 3)),
    "regrouped across a boundary": lambda p, x: p.view(p.permute(x, [2, 1, 0]), (10, 12)),
}


def _tensor(expr: Expr, leaf: torch.Tensor) -> torch.Tensor:
    if expr.args and isinstance(expr.args[0], Expr):
        result: torch.Tensor = expr.target(_tensor(expr.args[0], leaf), *expr.args[1:])
        return result
    return leaf


@pytest.mark.parametrize("name", VIEWS)
def test_ranks_are_torch_strides(name: str) -> None:
    program, leaf = Program(), torch.arange(120.0).reshape(SHAPE)
    view = VIEWS[name](program, program.input("x", SHAPE, torch.float32, Stage.CONTEXT))
    tensor = _tensor(view, leaf)
    by_rank = sorted(range(tensor.ndim), key=ranks(view).__getitem__)
    strides = [tensor.stride(dim) for dim in by_rank]
    assert strides == sorted(strides, reverse=True)
    assert (move(view, rows=1) is None) == tensor.is_contiguous()


@pytest.mark.parametrize("name", [name for name in VIEWS if "merged" in name or "regrouped" in name])
def test_reshapes_that_copy(name: str) -> None:
    program, leaf = Program(), torch.arange(120.0).reshape(SHAPE)
    view = VIEWS[name](program, program.input("x", SHAPE, torch.float32, Stage.CONTEXT))
    assert reshape_copies(view) == (_tensor(view, leaf).data_ptr() != leaf.data_ptr())


def test_a_move_keeps_runs_together() -> None:
    program = Program()
    x = program.input("x", SHAPE, torch.float32, Stage.CONTEXT)
    outer = move(program.permute(x, [1, 0, 2]), rows=1)
    inner = move(program.permute(x, [0, 2, 1]), rows=1)
    assert outer is not None
    assert inner is not None
    assert (outer.run, outer.planes) == (5, 0)
    assert (inner.run, inner.planes) == (1, SHAPE[0])
