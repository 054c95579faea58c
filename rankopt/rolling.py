"""Rolling: what a model unrolled, place by place, is one piece of work again.

    cat(x_1 y_1, ..., x_n y_n) = cat(x_1, ..., x_n) * cat(y_1, ..., y_n)
    cat(x[:, i], x[:, j], ...) = x[:, [i, j, ...]]

A loop over 325 pairs of fields is three products: context with context once per request, context with target, target
with target. Pairs of context and target fields form a grid, which stays pending over both of its axes, so that a next
linear layer can be folded into it; other pairs lie along one new axis. Weights that differ from place to place
become one batched product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankopt import operands as ops
from rankopt.algebra import settle
from rankopt.axes import Axis, Group
from rankopt.evaluate import join
from rankopt.operands import Index, Operand
from rankopt.program import Expr, Stage, aten
from rankopt.structure import concatenate
from rankopt.values import Cat, Node, Part, Sum, Term, leaf
from rankopt.workspace import Workspace

LEAST = 4
"""Fewer parts of one kind than this stay as they are."""

MOST_GRIDS = 24
"""Pairs that fall into more grids than this lie along one axis."""


def roll(w: Workspace, node: Node) -> Node:
    """The Cat with its parts of equal form joined, `LEAST` and more of each, where that moves less than it saves."""
    if not isinstance(node, Cat) or len(node.parts) < LEAST:
        return node
    kinds: dict[object, list[_Member]] = {}
    parts: list[Part] = []
    for part in node.parts:
        member = _member(part)
        if member is None:
            parts.append(part)
        else:
            kinds.setdefault(member.form, []).append(member)
    for members in kinds.values():
        rolled = _roll(w, members) if len(members) >= LEAST else None
        parts.extend(rolled if rolled is not None else [member.part for member in members])
    return concatenate(w, node.axis, parts) if len(parts) < len(node.parts) else node


# ------------------------------------------------------------------------------------------------------ forms


@dataclass(frozen=True, slots=True)
class _Member:
    """A part that is one product: its factors in canonical order, and what other parts must share to be joined."""

    part: Part
    term: Term
    bound: Group
    """The axes that the part has for itself: its own, and those that the product sums."""
    form: object


def _member(part: Part) -> _Member | None:
    """The part as a product of factors; None if it is anything else."""
    node = part.node
    if not isinstance(node, Sum) or len(node.terms) != 1:
        return None
    (term,) = node.terms
    own = dict.fromkeys((*part.axes, *sorted(term.summed, key=lambda axis: axis.serial)))

    def pattern(operand: Operand) -> tuple[tuple[bool, int], ...]:
        return tuple((axis in own, axis.size if axis in own else axis.serial) for axis in operand.axes)

    def key(operand: Operand) -> tuple[object, ...]:
        return operand.tensor.stage, operand.has_rows, pattern(operand), str(operand.dtype)

    factors = tuple(sorted(term.operands, key=key))
    bound = tuple(dict.fromkeys((*part.axes, *(a for o in factors for a in o.axes if a in own))))
    number = {axis: i for i, axis in enumerate(bound)}
    names = tuple(tuple(number.get(axis, axis) for axis in operand.axes) for operand in factors)
    shape = tuple((axis.size, axis in term.summed) for axis in bound)
    kinds = tuple((operand.tensor.stage, operand.dtype) for operand in factors)
    form = (len(part.axes), shape, names, kinds, term.coefficient)
    return _Member(part, Term(factors, term.summed, term.coefficient), bound, form)


# ------------------------------------------------------------------------------------------------------ factors


@dataclass(frozen=True, slots=True)
class _Factor:
    """What stands at one place of all members: member k has `variants[choices[k]]`.

    Variants that are places of one tensor are also `source[places]`, along the axis `axis` of it.
    """

    variants: tuple[Operand, ...]
    choices: Index
    source: Operand | None = None
    axis: Axis | None = None
    places: Index | None = None

    @property
    def varies(self) -> bool:
        """Whether the members differ in it."""
        return len(self.variants) > 1

    @property
    def stage(self) -> Stage:
        """When all of it can be computed."""
        return max(variant.tensor.stage for variant in self.variants)


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor as one place of a dim of another."""

    base: Expr
    dim: int
    place: int


def _place(w: Workspace, tensor: Expr) -> _Place | None:
    """`x[:, i]`; an aligned range of a dim, `x[:, i * d : (i + 1) * d]`, is place i of `x.unflatten(1, (-1, d))`."""
    if tensor.target is aten.select.int:
        base, dim, place = tensor.args
        size = base.dims[dim]
        return _Place(base, dim, place % size) if isinstance(size, int) and isinstance(place, int) else None
    if tensor.target is not aten.slice.Tensor or len(tensor.args) != 4:
        return None
    base, dim, start, end = tensor.args
    size, length = base.dims[dim], tensor.dims[dim]
    if not isinstance(size, int) or not isinstance(length, int) or end - start != length:
        return None
    if size % length or start % length:
        return None
    shape = (*base.dims[:dim], size // length, length, *base.dims[dim + 1 :])
    return _Place(w.program.view(base, shape), dim, start // length)


def _factor(w: Workspace, operands: Sequence[Operand]) -> _Factor:
    """What stands at one place of all members, whose axes have common names."""
    numbers: dict[int, int] = {}
    choices = np.array([numbers.setdefault(o.tensor.serial, len(numbers)) for o in operands], dtype=np.int64)
    variants = tuple({o.tensor.serial: o for o in operands}.values())
    if len(variants) == 1:
        return _Factor(variants, choices)
    found = [_place(w, variant.tensor) for variant in variants]
    places = [place for place in found if place is not None]
    first = places[0] if places else None
    if first is None or len(places) < len(found) or any((p.base, p.dim) != (first.base, first.dim) for p in places):
        return _Factor(variants, choices)
    size = first.base.dims[first.dim]
    assert isinstance(size, int)
    axis = w.axes.fresh(size)
    axes = variants[0].axes
    source = Operand(first.base, (*axes[: first.dim], axis, *axes[first.dim :]))
    return _Factor(variants, choices, source, axis, np.array([p.place for p in places], dtype=np.int64))


def _at(w: Workspace, factor: _Factor, members: Index, axes: Group) -> Operand:
    """The factor of `members`, an array shaped like `axes`: it has those of the axes along which it varies."""
    if not factor.varies:
        return factor.variants[0]
    choices = factor.choices[members]
    dims = [dim for dim in range(choices.ndim) if (choices != choices.take([0], axis=dim)).any()]
    choices = choices[tuple(slice(None) if dim in dims else 0 for dim in range(choices.ndim))]
    new = tuple(axes[dim] for dim in dims)
    if factor.source is not None and factor.axis is not None and factor.places is not None:
        return ops.pick(w, factor.source, (factor.axis,), factor.places[choices], new)
    used, inverse = np.unique(choices, return_inverse=True)
    if len(used) == choices.size:  # each once: put side by side in their final order
        used, inverse = choices.reshape(-1), np.arange(choices.size)
    if len(used) == 1:
        return factor.variants[int(used[0])]
    axis = w.axes.fresh(len(used))
    parts = tuple(
        Part(np.array([i], dtype=np.int64), (), leaf(factor.variants[choice])) for i, choice in enumerate(used.tolist())
    )
    joined, _ = join(w, Cat(axis, parts), axis)
    return ops.pick(w, joined, (axis,), inverse.reshape(choices.shape).astype(np.int64), new)


# ------------------------------------------------------------------------------------------------------ rolling


def _roll(w: Workspace, members: Sequence[_Member]) -> list[Part] | None:
    """Members of one form as few parts, or None where that does not pay."""
    common = members[0].bound
    renamed: list[list[Operand]] = []
    for member in members:
        names = dict(zip(member.bound, common, strict=True))
        renamed.append([operand.rename(names) for operand in member.term.operands])
    factors = [_factor(w, operands) for operands in zip(*renamed, strict=True)]
    if not _pays(w, members, factors):
        return None
    return [_grid(w, members, factors, grid) for grid in _grids(factors, len(members))]


def _pays(w: Workspace, members: Sequence[_Member], factors: Sequence[_Factor]) -> bool:
    """Whether the calls saved cost more than what has to be copied per candidate to make one operand of many."""
    if len(factors) == 1:
        return factors[0].source is not None
    copied = sum(
        sum(variant.volume(w.candidates) for variant in factor.variants)
        for factor in factors
        if factor.varies and factor.source is None and factor.stage is Stage.CANDIDATE
    )
    result = len(members) * Operand(members[0].term.operands[0].tensor, members[0].term.axes).volume(w.candidates)
    calls = (len(members) - 1) * (len(factors) - 1) * w.profile.call
    return w.profile.gather * copied <= calls + w.profile.gather * result


def _grids(factors: Sequence[_Factor], count: int) -> list[Index]:
    """The members as arrays: grids of context by target, or all of them in one row."""
    row = [np.arange(count, dtype=np.int64)]
    context = next((f for f in factors if f.varies and f.stage is Stage.CONTEXT), None)
    target = next((f for f in factors if f.varies and f.stage is Stage.CANDIDATE), None)
    if context is None or target is None:
        return row
    points = list(zip(context.choices.tolist(), target.choices.tolist(), strict=True))
    if len(set(points)) < count:
        return row
    member = {point: i for i, point in enumerate(points)}
    wide, tall = _by_columns(points), _by_columns([(b, a) for a, b in points])
    if min(len(wide), len(tall)) > min(MOST_GRIDS, count // 2):
        return row
    if len(wide) <= len(tall):
        return [np.array([[member[a, b] for b in columns] for a in rows]) for columns, rows in wide.items()]
    return [np.array([[member[a, b] for b in rows] for a in columns]) for columns, rows in tall.items()]


def _by_columns(points: Sequence[tuple[int, int]]) -> dict[tuple[int, ...], list[int]]:
    """Grids that cover `points`: the rows that have the same columns."""
    columns: dict[int, list[int]] = {}
    for a, b in points:
        columns.setdefault(a, []).append(b)
    grids: dict[tuple[int, ...], list[int]] = {}
    for a, found in columns.items():
        grids.setdefault(tuple(sorted(found)), []).append(a)
    return grids


def _grid(w: Workspace, members: Sequence[_Member], factors: Sequence[_Factor], grid: Index) -> Part:
    """The members of one grid as one part; an axis of size one is none."""
    grid = grid.squeeze()
    first = members[0]
    axes = tuple(w.axes.fresh(size) for size in grid.shape)
    term = Term(tuple(_at(w, factor, grid, axes) for factor in factors), first.term.summed, first.term.coefficient)
    positions = np.concatenate([members[i].part.positions for i in grid.reshape(-1).tolist()])
    return Part(positions, (*axes, *first.part.axes), settle(w, [term]))
