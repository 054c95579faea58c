"""A state in fewer bytes: its floating tensors rounded to float16 or bfloat16 between the stages.

The one option of the compiler that is not exact. The context stage ends with the rounding, the candidate stage begins
with the way back, and all between is computed as before. In a float64 run both casts are looked through
(`rankopt.float64`), so that the program is verified as exactly as any other; what the rounding costs is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rankopt.errors import InputError
from rankopt.expressions import Expr, Leaf, operands, reachable, replaced
from rankopt.program import Program
from rankopt.stages import Names, Stages, split

aten = torch.ops.aten

DTYPES = (torch.float16, torch.bfloat16)
"""What a state can be rounded to."""


def require_state_dtype(dtype: torch.dtype) -> None:
    """Raises InputError for a type that a state cannot be rounded to."""
    if dtype not in DTYPES:
        raise InputError(
            f"a state cannot be kept in {dtype}.\n  expected: {', '.join(map(str, DTYPES))}\n"
            "  fix: name one of them, or leave state_dtype out"
        )


def narrowed(plans: Sequence[Stages], dtype: torch.dtype) -> list[Stages]:
    """The stages of plans of one model, with every wider floating tensor of their states rounded to `dtype`."""
    program, names = Program(), Names()
    found: list[Stages] = []
    for stages in reversed(plans):  # in which order a saved ranker is read, too
        found.insert(0, _narrowed(stages, dtype, program, names))
    return found


def _narrowed(stages: Stages, dtype: torch.dtype, program: Program, names: Names) -> Stages:
    *nodes, output = stages.whole.graph.nodes
    exprs = program.adopt((node.meta["expr"] for node in nodes), stages.constants)
    state = {exprs[node.meta["expr"].serial].serial for node in stages.context_stage.graph.output_node().args[0]}  # type: ignore[union-attr]
    seen: dict[int, Expr] = {}
    """What candidates get to see of each expression, by its serial."""
    for expr in exprs.values():
        program.origin = expr.origin
        if expr.serial in state:
            seen[expr.serial] = _through(expr, dtype, program)
        elif all(seen[o.serial] is o for o in operands((expr.args, expr.kwargs))):
            seen[expr.serial] = expr
        else:
            assert not isinstance(expr.target, Leaf)  # it has operands
            args, kwargs = replaced((expr.args, expr.kwargs), seen)
            seen[expr.serial] = program.call(expr.target, *args, shape=expr.shape, out=expr.dtype, **kwargs)
    outputs = [seen[exprs[node.meta["expr"].serial].serial] for node in output.args[0]]
    return split(reachable(outputs), outputs, program.constants, names)


def _through(expr: Expr, dtype: torch.dtype, program: Program) -> Expr:
    """A tensor of the state after it was rounded: of its own type again, but with fewer digits."""
    if not expr.dtype.is_floating_point or expr.dtype.itemsize <= dtype.itemsize:
        return expr
    rounded = program.call(aten._to_copy.default, expr, shape=expr.shape, out=dtype, dtype=dtype)
    return program.call(aten._to_copy.default, rounded, shape=expr.shape, out=expr.dtype, dtype=expr.dtype)
