"""Cats within Cats: which is outermost, and how many parts they have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from rankopt.axes import Axis, sizes
from rankopt.evaluate import force, join
from rankopt.structure import concatenate, pick
from rankopt.values import Cat, Node, Part, Sum, leaf
from rankopt.workspace import Workspace


def part_of(w: Workspace, node: Node, axis: Axis, part: Part) -> Node:
    """The places of `node` along `axis` that `part` covers, under the part's own axes."""
    return pick(w, node, (axis,), part.positions.reshape(sizes(part.axes)), part.axes)


def within(w: Workspace, node: Node, axes: Collection[Axis], law: Callable[[Node], Node]) -> Node:
    """Applies `law` to the sub-nodes in which only `axes` are concatenated: softmax and norms work on those."""

    def apply(inner: Node) -> Node:
        if isinstance(inner, Cat) and inner.axis not in axes:
            return Cat(inner.axis, tuple(Part(p.positions, p.axes, apply(p.node)) for p in inner.parts))
        return law(inner)

    return apply(hoist(w, node, axes))


def hoist(w: Workspace, node: Node, axes: Collection[Axis]) -> Node:
    """The same node with its Cats along other axes than `axes` outermost."""
    outer = _outer_cat(node, axes)
    if outer is None or (outer is node and all(_outer_cat(p.node, axes) is None for p in outer.parts)):
        return node
    parts = [Part(p.positions, p.axes, hoist(w, part_of(w, node, outer.axis, p), axes)) for p in outer.parts]
    return Cat(outer.axis, tuple(parts))


def _outer_cat(node: Node, axes: Collection[Axis]) -> Cat | None:
    """The outermost Cat along another axis than `axes` and those of parts that lie along them; None without one."""
    if isinstance(node, Sum):
        return None
    if node.axis not in axes:
        return node
    inner = {*axes, *(axis for part in node.parts for axis in part.axes)}
    return next((cat for part in node.parts if (cat := _outer_cat(part.node, inner)) is not None), None)


def replace_leaves(node: Node, results: list[Node]) -> Node:
    """The node with the sums of which it is concatenated replaced, in order, by `results`, which is used up."""
    if not isinstance(node, Cat):
        return results.pop(0)
    return Cat(node.axis, tuple(Part(p.positions, p.axes, replace_leaves(p.node, results)) for p in node.parts))


CROWDED = 4
"""How many times more parts than a Cat may have are too many to stay pending."""


def coalesce(w: Workspace, node: Node) -> Node:
    """Joins evaluated parts of the same kind (same axes, same stage) into one tensor, so that Cats stay short.

    Where there are very many, those that are pending are evaluated too: one by one, they cost more than they save.
    """
    if not isinstance(node, Cat) or len(node.parts) == 1:
        return node
    crowded = len(node.parts) > CROWDED * w.limits.parts
    kinds: dict[object, list[Part]] = {}
    for part in node.parts:
        operand = part.node.operand if isinstance(part.node, Sum) else None
        if operand is None and crowded:
            operand = force(w, part.node)
        kind: object = id(part)
        if operand is not None:
            outer = frozenset(axis for axis in operand.axes if axis not in part.axes)
            kind = (outer, operand.dtype, operand.has_rows, operand.is_weight)
        kinds.setdefault(kind, []).append(part)
    if all(len(group) == 1 for group in kinds.values()):
        return node
    return concatenate(w, node.axis, [_fuse(w, group) for group in kinds.values()])


def _fuse(w: Workspace, group: list[Part]) -> Part:
    """Parts of one kind as one part, along one new axis."""
    if len(group) == 1:
        return group[0]
    group = sorted(group, key=lambda part: int(part.positions[0]))
    axis = w.axes.fresh(sum(len(part.positions) for part in group))
    joined, places = join(w, Cat(axis, _renumbered(group)), axis)
    return Part(np.concatenate([part.positions for part in group])[places], (axis,), leaf(joined))


def _renumbered(group: Sequence[Part]) -> tuple[Part, ...]:
    """The parts of a group as a Cat of their own: each at the positions that follow those of the one before."""
    ends = np.cumsum([len(part.positions) for part in group])
    return tuple(
        Part(np.arange(end - len(part.positions), end, dtype=np.int64), part.axes, part.node)
        for part, end in zip(group, ends, strict=True)
    )
