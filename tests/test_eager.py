"""Eager execution: the same results, fewer intermediates, arguments untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

import rankopt
from rankopt.eager import eager, safe_softmax
from rankopt.emit import emit
from rankopt.expressions import Expr, Stage, reachable
from rankopt.program import Program, aten


def _two_layers() -> tuple[Program, Expr, Expr]:
    program = Program()
    x = program.input("x", (3, 4), torch.float32, Stage.CONTEXT)
    w = program.input("w", (4, 4), torch.float32, Stage.CONTEXT)
    return program, x, w


def _emitted(arguments: dict[str, Expr], *results: Expr) -> fx.GraphModule:
    body = [expr for expr in reachable(list(results)) if expr not in arguments.values()]
    return emit(arguments, body, results, "Stage")


def _methods(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_method"]


def _mm(program: Program, x: Expr, w: Expr) -> Expr:
    return program.call(aten.mm.default, x, w, shape=(x.dims[0], w.dims[1]), out=x.dtype)


def _run(module: fx.GraphModule) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    arguments = [torch.randn(3, 4), torch.randn(4, 4)]
    kept = [argument.clone() for argument in arguments]
    expected: tuple[Tensor, ...] = module(*arguments)
    found: tuple[Tensor, ...] = eager(module)(*arguments)
    assert all(map(torch.equal, found, expected))
    assert all(map(torch.equal, arguments, kept))
    return found


def test_a_dead_intermediate_is_overwritten() -> None:
    program, x, w = _two_layers()
    module = _emitted({"x": x, "w": w}, program.pointwise(aten.relu.default, program.add(x, _mm(program, x, w))))
    assert _methods(eager(module)) == ["add_", "relu_"]
    _run(module)


def test_an_argument_is_not_overwritten() -> None:
    program, x, w = _two_layers()
    module = _emitted({"x": x, "w": w}, program.pointwise(aten.relu.default, program.view(x, (12,))), w)
    assert _methods(eager(module)) == ["reshape"]
    _run(module)


def test_what_is_read_later_is_not_overwritten_not_even_through_a_view() -> None:
    program, x, w = _two_layers()
    product = _mm(program, x, w)
    flat = program.view(product, (12,))
    module = _emitted(
        {"x": x, "w": w}, program.pointwise(aten.relu.default, product), program.pointwise(aten.exp.default, flat)
    )
    assert "relu_" not in _methods(eager(module))
    _run(module)


def test_an_operand_that_meets_a_view_of_itself_is_not_overwritten() -> None:
    program = Program()
    x = program.input("x", (4, 4), torch.float32, Stage.CONTEXT)
    product = _mm(program, x, x)
    module = _emitted({"x": x}, program.add(product, program.permute(product, [1, 0])))
    assert "add_" not in _methods(eager(module))


def test_a_product_does_not_overwrite_its_factor() -> None:
    """`y + y W`: the sum may not be written into y while rows of y are still to be multiplied. `y * y` may be."""
    program, x, w = _two_layers()
    y = program.view(_mm(program, x, w), (1, 3, 4))
    weights = program.view(w, (1, 4, 4))
    product = program.call(aten.baddbmm.default, y, y, weights, shape=(1, 3, 4), out=x.dtype)
    module = _emitted({"x": x, "w": w}, product)
    assert "baddbmm_" not in _methods(eager(module))
    _run(module)
    square = _mm(program, x, w)
    module = _emitted({"x": x, "w": w}, program.mul(square, square))
    assert _methods(eager(module)) == ["mul_"]
    _run(module)


def test_an_expanded_tensor_is_not_overwritten() -> None:
    program, x, w = _two_layers()
    row = program.reduce(aten.sum.dim_IntList, _mm(program, x, w), [0])
    wide = program.expand(program.view(row, (1, 4)), (3, 4))
    module = _emitted({"x": x, "w": w}, program.pointwise(aten.relu.default, wide))
    assert "relu_" not in _methods(eager(module))
    _run(module)


def _functions(module: fx.GraphModule) -> list[str]:
    return [node.target.__name__ for node in module.graph.nodes if node.op == "call_function"]


def _close(module: fx.GraphModule, *arguments: Tensor) -> list[str]:
    """The functions called where `module` is run eagerly, whose results are compared."""
    kept = [argument.clone() for argument in arguments]
    torch.testing.assert_close(eager(module)(*arguments), module(*arguments))
    assert all(map(torch.equal, arguments, kept))
    return _functions(eager(module))


@pytest.mark.parametrize("sizes", [((3, 4), (3, 4), (3, 4)), ((4,), (3, 4), (3, 1)), ((3, 4), (4,), (4,))])
@pytest.mark.parametrize("target", [aten.add.Tensor, aten.sub.Tensor])
def test_a_product_that_is_only_added_is_part_of_the_sum(target: Any, sizes: tuple[tuple[int, ...], ...]) -> None:
    program = Program()
    c, a, b = [program.input(f"x{i}", size, torch.float32, Stage.CONTEXT) for i, size in enumerate(sizes)]
    total = program.pointwise(target, c, program.mul(a, b))
    module = _emitted({"c": c, "a": a, "b": b}, program.pointwise(aten.relu.default, total))
    assert _close(module, *map(torch.randn, sizes)) == ["addcmul"]


def test_a_sum_overwrites_a_factor_or_the_addend_that_is_read_no_more() -> None:
    program, x, w = _two_layers()
    product = _mm(program, x, w)
    for total in (program.add(x, program.mul(product, x)), program.add(product, program.mul(x, x))):
        module = _emitted({"x": x, "w": w}, total)
        _close(module, torch.randn(3, 4), torch.randn(4, 4))
        node = list(eager(module).graph.nodes)[-2]
        assert node.target == "addcmul_" or node.kwargs["out"].target is torch.mm


def test_a_product_that_is_read_again_or_would_be_slow_in_one_loop_stays() -> None:
    program, x, w = _two_layers()
    one, other = (program.input(name, (3, 1), torch.float32, Stage.CONTEXT) for name in ("one", "other"))
    product, wide = program.mul(x, x), program.input("wide", (3, 4), torch.float64, Stage.CONTEXT)
    twice = _emitted({"x": x, "w": w}, program.add(x, product), program.pointwise(aten.relu.default, product))
    assert "mul" in _close(twice, torch.randn(3, 4), torch.randn(4, 4))
    slow = _emitted({"x": x, "one": one, "other": other}, program.add(one, program.mul(x, other)))
    assert "mul" in _close(slow, torch.randn(3, 4), torch.randn(3, 1), torch.randn(3, 1))
    mixed = _emitted({"x": x, "wide": wide}, program.add(wide, program.mul(x, x)))
    assert "mul" in _close(mixed, torch.randn(3, 4), torch.randn(3, 4, dtype=torch.float64))
    doubled = _emitted({"x": x, "w": w}, program.add(product, product))
    assert "mul" in _close(doubled, torch.randn(3, 4), torch.randn(4, 4))


@pytest.mark.parametrize("dim", [-1, 0, 1])
def test_a_safe_softmax_is_the_same_whatever_is_in_its_rows(dim: int) -> None:
    inf, nan = float("inf"), float("nan")
    rows = [[1.0, -2.0, 0.5], [-inf] * 3, [-inf, 1.0, -inf], [nan, -inf, -inf], [-inf, nan, 0.0], [inf, 1.0, -inf]]
    for chosen in (rows[:1], rows[:3], rows[1:2], rows):
        x = torch.tensor(chosen)
        assert torch.equal(safe_softmax(x, dim).nan_to_num(9.0), aten._safe_softmax.default(x, dim).nan_to_num(9.0))
    assert safe_softmax(torch.empty(2, 0), 1).shape == (2, 0)
    assert safe_softmax(torch.tensor(2.0), 0) == 1.0
    assert safe_softmax(torch.ones(2, 2), 1, torch.float64).dtype == torch.float64


class Attention(nn.Module):
    """Scores [R] of items [R, 4] that attend to the last 3 of a history [R, 3, 4], masked [R, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)

    def forward(self, history: Tensor, mask: Tensor, item: Tensor) -> Tensor:
        query = self.query(item).unsqueeze(1)
        found = nn.functional.scaled_dot_product_attention(query, history, history, attn_mask=mask.unsqueeze(1))
        return (found.squeeze(1) * item).sum(-1)


def test_who_traces_or_maps_the_calls_is_shown_all_of_them() -> None:
    """A mask that leaves nothing has to be seen in whatever is made of a ranker, also if the example has none."""
    torch.manual_seed(0)
    context = {"history": torch.randn(1, 3, 4), "mask": torch.tensor([[True, False, True]])}
    items = torch.randn(5, 4)
    ranker = rankopt.optimize(Attention().eval(), context=context, target={"item": items})
    empty = {**context, "mask": torch.zeros(1, 3, dtype=torch.bool)}

    def scores(history: Tensor, mask: Tensor, item: Tensor) -> Tensor:
        found: Tensor = ranker({"history": history, "mask": mask}, {"item": item})
        return found

    arguments, others = (*context.values(), items), (*empty.values(), items)
    with torch.no_grad():
        expected = ranker(empty, {"item": items})
        assert expected.isfinite().all()
        traced = make_fx(scores)(*arguments)
        torch.testing.assert_close(traced(*others), expected)
        mapped = torch.func.vmap(scores)(*(torch.stack(pair) for pair in zip(arguments, others, strict=True)))
        torch.testing.assert_close(mapped[1], expected)


def test_a_permuted_operand_does_not_pass_its_order_on_to_a_sum() -> None:
    program, _, w = _two_layers()
    turned = program.permute(w, [1, 0])
    module = _emitted({"w": w}, program.add(turned, program.mul(w, w)))
    assert "mul" in _close(module, torch.randn(4, 4))


def _read_by_rows(stage: Stage) -> tuple[fx.GraphModule, Tensor, Tensor]:
    """[4, 3], turned, plus rows [2, 3, 4]."""
    program = Program()
    c = program.input("c", (4, 3), torch.float32, Stage.CONTEXT)
    t = program.input("t", (2, 3, 4), torch.float32, stage)
    total = program.add(program.permute(c, [1, 0]), t)
    return _emitted({"c": c, "t": t}, total), torch.randn(4, 3), torch.randn(2, 3, 4)


def test_what_all_candidates_read_is_put_in_order_first() -> None:
    module, *arguments = _read_by_rows(Stage.CANDIDATE)
    assert _methods(eager(module)) == ["permute", "contiguous"]
    _close(module, *arguments)


def test_what_is_read_once_stays_as_it_lies() -> None:
    module, *arguments = _read_by_rows(Stage.CONTEXT)
    assert _methods(eager(module)) == ["permute"]
    _close(module, *arguments)
