"""Dims of values: bringing the axes of several values into agreement.

Two dims of equal size may be different groups: `[F, D]` here, one axis of `F * D` elements there. They are refined to
their common factors; where there are none (`[6, 4]` against `[8, 3]`), axes are merged until there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rankopt.axes import ROW, Axis, Group, Rows, Shape, Size, sizes
from rankopt.expressions import Expr
from rankopt.operands import Operand
from rankopt.rules import Refusal
from rankopt.structure import pick
from rankopt.values import Node, Value, freshen, identity, leaf, rename
from rankopt.workspace import Workspace


def from_tensor(w: Workspace, tensor: Expr, shape: Shape | None = None) -> Value:
    """A tensor of the program as a value. `shape` gives the logical sizes where they differ: a context tensor has one
    physical row (or none) and N logical ones."""
    groups: list[Group] = []
    axes: list[Axis] = []
    for physical, logical in zip(tensor.dims, shape or tensor.dims, strict=True):
        if logical == 1:
            groups.append(())
        elif isinstance(logical, Rows):
            if logical.times != 1 or ROW in axes:
                raise Refusal("rows are folded in an order that is not known")
            groups.append((ROW,))
            if physical != 1:
                axes.append(ROW)
        else:
            axis = w.axes.fresh(logical)
            groups.append((axis,))
            axes.append(axis)
    kept = [
        size for size, group in zip(tensor.dims, groups, strict=True) if group and not (group == (ROW,) and size == 1)
    ]
    return Value(tuple(groups), leaf(Operand(w.program.view(tensor, kept), tuple(axes))))


def replace_axes(value: Value, old: Group, new: Group, node: Node) -> Value:
    """The value with `old`, neighbours in one group, written as `new`."""
    groups: list[Group] = []
    for group in value.groups:
        at = group.index(old[0]) if old[0] in group else -1
        groups.append((*group[:at], *new, *group[at + len(old) :]) if at >= 0 else group)
    return Value(tuple(groups), node, value.known)


def split_axis(w: Workspace, value: Value, axis: Axis, parts: Sequence[int]) -> Value:
    """The value with `axis` as several axes of sizes `parts`, major first."""
    new = tuple(w.axes.fresh(size) for size in parts)
    return replace_axes(value, (axis,), new, pick(w, value.node, (axis,), identity(new), new))


def merge_axes(w: Workspace, value: Value, old: Group) -> Value:
    """The value with the neighbours `old` as one axis."""
    if ROW in old:
        raise Refusal("rows would be merged with another dim")
    new = w.axes.fresh(math.prod(sizes(old)))
    places = np.arange(new.size, dtype=np.int64)
    return replace_axes(value, old, (new,), pick(w, value.node, old, places, (new,)))


def merge_dim(w: Workspace, value: Value, dim: int) -> Value:
    """The value with dim `dim` as at most one axis."""
    group = value.groups[dim]
    return merge_axes(w, value, group) if len(group) > 1 else value


def refine(w: Workspace, x: Value, i: int, y: Value, j: int) -> tuple[Value, Value]:
    """`x` and `y` with the same factors in dim i of the one and dim j of the other."""
    place = 0
    while place < max(len(x.groups[i]), len(y.groups[j])):
        if place >= len(x.groups[i]) or place >= len(y.groups[j]):
            raise Refusal(f"sizes {x.shape[i]} and {y.shape[j]} do not match")
        a, b = x.groups[i][place], y.groups[j][place]
        if (a is ROW) != (b is ROW):
            raise Refusal("rows are folded in different orders")
        if a is ROW or a.size == b.size:
            place += 1
        elif a.size % b.size == 0:
            x = split_axis(w, x, a, (b.size, a.size // b.size))
        elif b.size % a.size == 0:
            y = split_axis(w, y, b, (a.size, b.size // a.size))
        elif (common := math.gcd(a.size, b.size)) > 1:
            x = split_axis(w, x, a, (common, a.size // common))
            y = split_axis(w, y, b, (common, b.size // common))
        elif place + 1 < len(x.groups[i]) and place + 1 < len(y.groups[j]):
            x = merge_axes(w, x, x.groups[i][place : place + 2])
            y = merge_axes(w, y, y.groups[j][place : place + 2])
        else:
            raise Refusal(f"sizes {x.shape[i]} and {y.shape[j]} do not match")
    return x, y


def unify(w: Workspace, values: Sequence[Value]) -> tuple[list[Node], tuple[Group, ...]]:
    """Nodes with common axes, and the groups of the broadcast result, by torch's broadcasting of the dims."""
    ndim = max(value.ndim for value in values)
    padded = [Value((*[()] * (ndim - v.ndim), *v.groups), v.node) for v in values]
    work, groups = agree(w, [padded[0], *(freshen(w, value) for value in padded[1:])])
    if sum(ROW in group for group in groups) > 1:
        raise Refusal("every row meets every other row")
    return [renamed(value, groups) for value in work], groups


def agree(w: Workspace, values: Sequence[Value]) -> tuple[list[Value], tuple[Group, ...]]:
    """Values of equally many dims, refined to the same factors in each, and the groups of the first that has a dim."""
    work = list(values)
    for dim in range(work[0].ndim):
        first, *others = [i for i, value in enumerate(work) if value.groups[dim]] or [0]
        for attempt in range(_ROUNDS):
            if attempt == _ROUNDS - 1:
                work = [coarsest(w, value, dim) for value in work]
            for i in others:
                work[first], work[i] = refine(w, work[first], dim, work[i], dim)
            if len({sizes(work[i].groups[dim]) for i in (first, *others)}) == 1:
                break
    return work, tuple(next((v.groups[dim] for v in work if v.groups[dim]), ()) for dim in range(work[0].ndim))


_ROUNDS = 4
"""Refining one pair may merge axes that an earlier pair agreed on. Three rounds settle all but contrived cases; before
the fourth all axes are merged, and agree."""


def coarsest(w: Workspace, value: Value, dim: int) -> Value:
    """The value with as few axes in dim `dim` as there can be: one on each side of the rows."""
    group = value.groups[dim]
    at = group.index(ROW) if ROW in group else len(group)
    for run in (group[:at], group[at + 1 :]):
        if len(run) > 1:
            value = merge_axes(w, value, run)
    return value


def renamed(value: Value, groups: Sequence[Group]) -> Node:
    """The node of `value` under the axes of `groups`, which have the same factors; dims of size one stay broadcast."""
    names = {
        old: new
        for mine, theirs in zip(value.groups, groups, strict=True)
        if mine
        for old, new in zip(mine, theirs, strict=True)
        if old is not new
    }
    return rename(value.node, names)


def view(w: Workspace, value: Value, shape: Sequence[Size]) -> Value:
    """Reshape: the same places in the same order, regrouped."""
    targets = _infer(value, shape)
    if 0 in targets or any(axis.size == 0 for axis in value.axes if axis is not ROW):
        raise Refusal("a dim has no elements")
    value = Value(tuple((axis,) for axis in value.axes), value.node, value.known)
    groups: list[Group] = []
    at = 0
    for target in targets:
        rows = isinstance(target, Rows)
        rest = target.times if isinstance(target, Rows) else target
        group: list[Axis] = []
        while rest != 1 or rows:
            if at >= value.ndim:
                raise Refusal("the new shape does not cover the tensor")
            axis = value.axes[at]
            if axis is ROW:
                if not rows:
                    raise Refusal("rows are cut by a reshape")
                rows = False
            elif rest % axis.size == 0:
                rest //= axis.size
            else:
                value = _cut(w, value, at, rest)
                continue
            group.append(axis)
            at += 1
        groups.append(tuple(group))
    if at != value.ndim:
        raise Refusal("the new shape does not cover the tensor")
    return Value(tuple(groups), value.node, value.known)


def _cut(w: Workspace, value: Value, at: int, rest: int) -> Value:
    """Refines the axis at `at` so that `rest` elements can be taken from it, or merges it with its neighbour."""
    axis = value.axes[at]
    common = math.gcd(axis.size, rest)
    if common > 1:
        split = split_axis(w, value, axis, (common, axis.size // common))
        return Value(tuple((a,) for a in split.axes), split.node, split.known)
    if at + 1 >= value.ndim or value.axes[at + 1] is ROW:
        raise Refusal("rows are cut by a reshape")
    joined = Value((value.axes[at : at + 2],), value.node)
    merged = merge_axes(w, joined, joined.groups[0])
    groups = (*value.groups[:at], merged.groups[0], *value.groups[at + 2 :])
    return Value(groups, merged.node, value.known)


def _infer(value: Value, shape: Sequence[Size]) -> list[Size]:
    """The shape with its -1, if any, replaced by what is left."""
    targets = list(shape)
    if -1 not in targets:
        return targets
    has_rows = ROW in value.axes and not any(isinstance(size, Rows) for size in targets)
    whole = math.prod(axis.size for axis in value.axes if axis is not ROW)
    given = math.prod(size.times if isinstance(size, Rows) else size for size in targets if size != -1)
    if not given:
        raise Refusal("a dim has no elements")
    targets[targets.index(-1)] = Rows(whole // given) if has_rows else whole // given
    return targets


def rename_value(value: Value, names: Mapping[Axis, Axis]) -> Value:
    """The value under other axis names."""
    groups = tuple(tuple(names.get(axis, axis) for axis in group) for group in value.groups)
    return Value(groups, rename(value.node, names), value.known)
