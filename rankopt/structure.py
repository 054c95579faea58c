"""Structure: the places of a value, moved without moving data.

`pick` is the one structural operation. On a sum it reaches into the operands (weights are permuted, not activations);
on a concatenation it asks which part owns each place, so that what depends on the context alone stays apart, wherever
its fields stand. An index that no part or operand can follow on its own is applied to the evaluated tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rankopt import operands as ops
from rankopt.axes import Axis, Group, sizes
from rankopt.evaluate import force
from rankopt.operands import Index, Operand
from rankopt.symmetry import canonical_pairs
from rankopt.values import Cat, Node, Part, Sum, Term, identity, leaf
from rankopt.workspace import Workspace


def concatenate(w: Workspace, axis: Axis, parts: Sequence[Part]) -> Node:
    """A Cat in normal form: no empty part, no Cat on the same axis inside, no Cat of one part in its own order.

    One part in another order stays a Cat: whoever reads it permutes its own weights instead of the activations.
    """
    flat: list[Part] = []
    for part in parts:
        if not len(part.positions):
            continue
        inner = part.node
        if isinstance(inner, Cat) and part.axes == (inner.axis,):
            flat.extend(Part(part.positions[p.positions], p.axes, p.node) for p in inner.parts)
        else:
            flat.append(part)
    if len(flat) == 1 and len(flat[0].axes) <= 1 and np.array_equal(flat[0].positions, np.arange(axis.size)):
        return pick(w, flat[0].node, flat[0].axes, identity((axis,)), (axis,))
    return Cat(axis, tuple(flat))


def pick(w: Workspace, node: Node, old: Group, index: Index, new: Group) -> Node:
    """`result[..., new, ...] = node[..., old, ...]` at the flat places `index` (shaped `sizes(new)`) of `old`."""
    if not any(axis in old for axis in node.axes):
        return node
    if old == new and np.array_equal(index, identity(old)):
        return node
    if isinstance(node, Sum):
        return _pick_sum(w, node, old, index, new)
    if len(old) == 2 and len(new) == 1:
        index = canonical_pairs(node, old, index)
    if node.axis in old:
        return _pick_cat(w, node, old, index, new)
    parts = tuple(Part(p.positions, p.axes, pick(w, p.node, old, index, new)) for p in node.parts)
    return Cat(node.axis, parts)


def _pick_cat(w: Workspace, cat: Cat, old: Group, index: Index, new: Group) -> Node:
    """Picks along the axis of a Cat: places that one part owns stay together, whatever their order."""
    coordinates = list(np.unravel_index(index, sizes(old)))
    at = old.index(cat.axis)
    owner, local = cat.places()
    owners = np.asarray(owner[coordinates[at]])
    if owners.size == 0 or (owners == owners.flat[0]).all():
        part = cat.parts[int(owners.flat[0]) if owners.size else 0]
        inside = np.unravel_index(local[coordinates[at]], sizes(part.axes)) if part.axes else ()
        coordinates[at : at + 1] = list(inside)
        old = (*old[:at], *part.axes, *old[at + 1 :])
        places = np.ravel_multi_index(tuple(coordinates), sizes(old)) if old else np.zeros_like(index)
        return pick(w, part.node, old, np.asarray(places, dtype=np.int64), new)
    dim, classes = _classes(owners)
    parts: list[Part] = []
    for places in classes:
        axis = w.axes.fresh(len(places))
        inner = (*new[:dim], axis, *new[dim + 1 :])
        parts.append(Part(places, (axis,), pick(w, cat, old, index.take(places, axis=dim), inner)))
    return concatenate(w, new[dim], parts)


def _classes(owners: Index) -> tuple[int, list[Index]]:
    """The dim along which `owners` falls into the fewest (but several) classes of equal slices, and the classes."""
    best: tuple[int, list[Index]] | None = None
    for dim in range(owners.ndim):
        slices = np.moveaxis(owners, dim, 0).reshape(owners.shape[dim], -1)
        if (slices == slices[0]).all():
            continue
        _, number = np.unique(slices, axis=0, return_inverse=True)
        number = number.reshape(-1)
        order = list(dict.fromkeys(number.tolist()))
        classes = [np.flatnonzero(number == one).astype(np.int64) for one in order]
        if best is None or len(classes) < len(best[1]):
            best = dim, classes
    if best is None:
        raise AssertionError("the owners do not differ")
    return best


def _pick_sum(w: Workspace, node: Sum, old: Group, index: Index, new: Group) -> Node:
    routes = _separate(index, old, new)
    if routes is None:
        return _pick_jointly(w, node, old, index, new)
    grows = index.size > int(np.prod(sizes(old)))
    if grows and node.operand is None:
        force(w, node)
    if node.operand is not None:
        return leaf(_pick_operand(w, node.operand, routes))
    terms = (
        Term(tuple(_pick_operand(w, o, routes) for o in term.operands), term.summed, term.coefficient)
        for term in node.terms
    )
    return Sum(tuple(terms))


Route = tuple[Axis, Index, Group]
"""Where the places of one old axis come from: its coordinate, as a function of some of the new axes."""


def _separate(index: Index, old: Group, new: Group) -> list[Route] | None:
    """The index as one route per old axis, if no new axis leads to two old ones; else None."""
    coordinates = np.unravel_index(index, sizes(old)) if old else ()
    used: set[int] = set()
    routes: list[Route] = []
    for axis, places in zip(old, coordinates, strict=True):
        depends = (
            [dim for dim in range(index.ndim) if (places != places.take([0], axis=dim)).any()] if index.size else []
        )
        if used & set(depends):
            return None
        used |= set(depends)
        fixed = tuple(slice(None) if dim in depends else 0 for dim in range(index.ndim))
        routes.append((axis, np.asarray(places[fixed], dtype=np.int64), tuple(new[dim] for dim in depends)))
    return routes


def _pick_operand(w: Workspace, operand: Operand, routes: Iterable[Route]) -> Operand:
    for axis, places, axes in routes:
        operand = ops.pick(w, operand, (axis,), places, axes)
    return operand


def _pick_jointly(w: Workspace, node: Sum, old: Group, index: Index, new: Group) -> Node:
    """An index that ties several old axes together: a merge of dims, a whole grid in some order, or a triangle."""
    if len(new) == 1:
        grid = _grid(index, old)
        if grid is not None:
            kept = tuple(w.axes.fresh(len(places)) for places in grid[0])
            inner: Node = node
            for axis, places, axis_kept in zip(old, grid[0], kept, strict=True):
                inner = pick(w, inner, (axis,), places, (axis_kept,))
            return Cat(new[0], (Part(grid[1], kept, inner),))
    return leaf(ops.pick(w, force(w, node), old, index, new))


def _grid(index: Index, old: Group) -> tuple[list[Index], Index] | None:
    """The coordinates of a grid and the position of each point, if a flat index visits every point exactly once."""
    coordinates = np.unravel_index(index, sizes(old))
    unique = [np.unique(places) for places in coordinates]
    if int(np.prod([len(places) for places in unique])) != index.size:
        return None
    point = np.ravel_multi_index(
        [np.searchsorted(u, c) for u, c in zip(unique, coordinates, strict=True)], [len(u) for u in unique]
    )
    positions = np.empty(index.size, dtype=np.int64)
    positions[point] = np.arange(index.size)
    if len(np.unique(point)) != index.size:
        return None
    return unique, positions
