"""Operands: tensors whose dims have names.

An operand that lacks an axis is constant along it: the broadcast is deferred until something forces it. In particular
an operand without ROW is rank-2, computed once per request, and that is all there is to "deferring the broadcast".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rankopt.axes import ROW, Axis, Group, Rows, Size, group_size, sizes, volume
from rankopt.expressions import Expr, Stage
from rankopt.program import aten
from rankopt.workspace import Workspace

Index = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of the program, with one axis per physical dim."""

    tensor: Expr
    axes: Group

    @property
    def has_rows(self) -> bool:
        """Whether it is rank-3: one slice per candidate."""
        return ROW in self.axes

    @property
    def is_weight(self) -> bool:
        """Whether it depends on parameters only."""
        return self.tensor.stage is Stage.WEIGHT

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.tensor.dtype

    def volume(self, rows: int) -> int:
        """Number of elements at `rows` candidates."""
        return volume(self.axes, rows)

    def rename(self, names: Mapping[Axis, Axis]) -> Operand:
        """The same tensor under other axis names."""
        return Operand(self.tensor, tuple(names.get(axis, axis) for axis in self.axes))


def size_of(axis: Axis) -> Size:
    """Physical size of the dim that `axis` names."""
    return Rows() if axis is ROW else axis.size


def precedence(axes: Group) -> tuple[bool, int]:
    """Whose order an elementwise result takes over: that of the operand with rows and the most axes."""
    return ROW not in axes, -len(axes)


def merge_axes(groups: Sequence[Group]) -> Group:
    """All axes of `groups`, in an order that disturbs the longest least, the row axis first where it is added.

    The axes that the longest lacks are put before the axis that follows them in their own group, so that `[k, d]` and
    `[n, d]` give `[n, k, d]`, with the shared innermost axis still innermost.
    """
    ranked = sorted(groups, key=precedence)
    order = list(ranked[0])
    for group in ranked[1:]:
        for position in range(len(group) - 1, -1, -1):
            axis = group[position]
            if axis in order:
                continue
            after = group[position + 1] if position + 1 < len(group) else None
            if axis is ROW:
                order.insert(0, axis)
            else:
                order.insert(order.index(after) if after is not None else len(order), axis)
    return tuple(order)


def arrange(w: Workspace, operand: Operand, order: Sequence[Axis]) -> Expr:
    """The tensor with its dims in `order`; an axis it lacks is a dim of size 1, or nothing if it would lead."""
    dims = [operand.axes.index(axis) for axis in order if axis in operand.axes]
    tensor = w.program.permute(operand.tensor, dims)
    present = [axis in operand.axes for axis in order]
    if all(present):
        return tensor
    first = present.index(True) if True in present else len(order)
    shape = [size_of(axis) if here else 1 for axis, here in zip(order[first:], present[first:], strict=True)]
    return w.program.view(tensor, shape)


def pointwise(w: Workspace, build: Callable[..., Expr], operands: Sequence[Operand]) -> Operand:
    """`build` on tensors that broadcast against each other."""
    order = merge_axes([operand.axes for operand in operands])
    result = Operand(build(*(arrange(w, operand, order) for operand in operands)), order)
    leading = min(operands, key=lambda operand: precedence(operand.axes))
    w.layouts.derive(result.tensor.serial, order, leading.tensor.serial, leading.axes)
    for operand in operands:
        if operand is not leading:
            kept = tuple(axis for axis in order if axis in operand.axes)
            w.layouts.read(operand.tensor.serial, operand.axes, ((), (), kept), w.candidates)
    return result


def reduce(w: Workspace, target: Callable[..., Any], operand: Operand, axes: Iterable[Axis]) -> Operand:
    """Reduction over those of `axes` that the operand has."""
    gone = [axis for axis in axes if axis in operand.axes]
    if not gone:
        return operand
    tensor = w.program.reduce(target, operand.tensor, [operand.axes.index(axis) for axis in gone])
    result = Operand(tensor, tuple(axis for axis in operand.axes if axis not in gone))
    w.layouts.derive(tensor.serial, result.axes, operand.tensor.serial, operand.axes)
    return result


def expand(w: Workspace, operand: Operand, order: Sequence[Axis]) -> Expr:
    """The tensor with every axis of `order` physically present."""
    shape = [size_of(axis) for axis in order]
    tensor = arrange(w, operand, order)
    if tensor.dims == tuple(shape):
        return tensor
    missing = len(shape) - len(tensor.dims)
    if missing:
        tensor = w.program.view(tensor, (*[1] * missing, *tensor.dims))
    return w.program.expand(tensor, shape)


def pick(w: Workspace, operand: Operand, old: Group, index: Index, new: Group) -> Operand:
    """`result[..., new, ...] = operand[..., old, ...]` at the flat places `index` (of shape `sizes(new)`) of `old`.

    Axes of `old` that the operand lacks are constant along it, and simply vanish from the places; the others are taken
    in the order in which they lie in memory, so that a transposed tensor is not copied first.
    """
    here = tuple(axis for axis in operand.axes if axis in old)
    if not here:
        return operand
    if here != old:
        places = np.unravel_index(index, sizes(old))
        index = np.ravel_multi_index(tuple(places[old.index(axis)] for axis in here), sizes(here))
    first = min(operand.axes.index(axis) for axis in here)
    rest = [axis for axis in operand.axes if axis not in here]
    first = len([axis for axis in operand.axes[:first] if axis not in here])
    tensor = arrange(w, operand, (*rest[:first], *here, *rest[first:]))
    before, after = [size_of(axis) for axis in rest[:first]], [size_of(axis) for axis in rest[first:]]
    size = group_size(here)
    tensor = w.program.view(tensor, (*before, size, *after))
    if new == () and index.size == 1 and size != 1:
        shape = (*before, *after)
        tensor = w.program.call(aten.select.int, tensor, first, int(index), shape=shape, out=tensor.dtype)
        return Operand(tensor, tuple(rest))
    tensor = w.program.index_select(tensor, first, index.reshape(-1))
    tensor = w.program.view(tensor, (*before, *sizes(new), *after))
    return Operand(tensor, (*rest[:first], *new, *rest[first:]))


def cast(w: Workspace, operand: Operand, dtype: torch.dtype) -> Operand:
    """The operand with another element type."""
    if operand.dtype == dtype:
        return operand
    tensor = w.program.pointwise(aten._to_copy.default, operand.tensor, out=dtype, dtype=dtype)
    return Operand(tensor, operand.axes)
