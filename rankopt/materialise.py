"""From a value back to a plain tensor, with the rows that the model expects."""

from __future__ import annotations

from rankopt import operands as ops
from rankopt.axes import ROW
from rankopt.evaluate import force
from rankopt.expressions import Expr
from rankopt.values import Value
from rankopt.workspace import Workspace


def to_tensor(w: Workspace, value: Value, *, tiled: bool = True) -> Expr:
    """The tensor that the model's op would have seen: every axis present, dims merged.

    With `tiled=False` a dim of rows along which the value is constant has size one instead of N.
    """
    operand = force(w, value.node)
    axes = [axis for axis in value.axes if tiled or axis is not ROW or ROW in operand.axes]
    tensor = ops.expand(w, operand, axes)
    shape = value.shape if tiled or ROW in operand.axes or ROW not in value.axes else _without_rows(value)
    return w.program.view(tensor, shape)


def _without_rows(value: Value) -> tuple[int, ...]:
    sizes: list[int] = []
    for group in value.groups:
        size = 1
        for axis in group:
            size *= 1 if axis is ROW else axis.size
        sizes.append(size)
    return tuple(sizes)
