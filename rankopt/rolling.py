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
from dataclasses import dataclass, replace

import numpy as np

from rankopt import varying
from rankopt.axes import Group, volume
from rankopt.expressions import Stage
from rankopt.operands import Index, Operand
from rankopt.settling import settle
from rankopt.structure import concatenate
from rankopt.values import Cat, Node, Part, Sum, Term
from rankopt.varying import Varying
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


# ------------------------------------------------------------------------------------------------------ rolling


def _roll(w: Workspace, members: Sequence[_Member]) -> list[Part] | None:
    """Members of one form as few parts, or None where that does not pay."""
    first = members[0]
    renamed: list[list[Operand]] = []
    for member in members:
        names = dict(zip(member.bound, first.bound, strict=True))
        renamed.append([operand.rename(names) for operand in member.term.operands])
    factors = [varying.side_by_side(w, operands) for operands in zip(*renamed, strict=True)]
    if not _pays(w, members, factors):
        return None
    positions = np.stack([member.part.positions for member in members])
    grids = _grids(factors) or [np.arange(len(members), dtype=np.int64)]
    return [_grid(w, first.part.axes, positions, first.term, factors, grid) for grid in grids]


def _pays(w: Workspace, members: Sequence[_Member], factors: Sequence[Varying]) -> bool:
    """Whether the calls saved cost more than what has to be copied per candidate to make one operand of many."""
    if len(factors) == 1:
        return factors[0].source is not None
    copied = sum(
        sum(variant.volume(w.candidates) for variant in factor.variants)
        for factor in factors
        if factor.varies and factor.stage is Stage.CANDIDATE
    )
    result = len(members) * volume(members[0].term.axes, w.candidates)
    calls = (len(members) - 1) * (len(factors) - 1) * w.profile.call
    return w.profile.gather * copied <= calls + w.profile.gather * result


# ------------------------------------------------------------------------------------------------------ regridding


def regrid(w: Workspace, node: Node) -> Node:
    """Products of gathered fields, `x[:, i] * x[:, j]`: pairs of context and target fields as grids.

    What was gathered for them is not needed then, and a next linear layer can be folded into them. A pair may have
    its context field first or second: parts that multiply the same tensors are one.
    """
    if not isinstance(node, Cat):
        return node
    kinds: dict[object, list[_Gathered]] = {}
    parts: list[Part] = []
    for part in node.parts:
        gathered = _gathered(w, part)
        if gathered is None:
            parts.append(part)
        else:
            kinds.setdefault(gathered.form, []).append(gathered)
    changed = False
    for members in kinds.values():
        regridded = _regrid(w, members)
        changed |= regridded is not None
        parts.extend(regridded if regridded is not None else [member.part for member in members])
    return concatenate(w, node.axis, parts) if changed else node


@dataclass(frozen=True, slots=True)
class _Gathered:
    """A part along one axis that is a product, of which each factor may have been gathered along it."""

    part: Part
    term: Term
    factors: tuple[Varying, ...]
    form: object


def _gathered(w: Workspace, part: Part) -> _Gathered | None:
    node = part.node
    if not isinstance(node, Sum) or len(node.terms) != 1 or len(part.axes) != 1:
        return None
    (own,), (term,) = part.axes, node.terms
    if own in term.summed or len(term.operands) < 2:
        return None

    def pattern(factor: Varying) -> tuple[object, ...]:
        operand = factor.source if factor.source is not None else factor.variants[0]
        return factor.stage, operand.tensor.serial, tuple(-1 if a is factor.axis else a.serial for a in operand.axes)

    factors = tuple(sorted((varying.along(w, operand, own) for operand in term.operands), key=pattern))
    summed = tuple(sorted(axis.serial for axis in term.summed))
    return _Gathered(part, term, factors, (tuple(map(pattern, factors)), summed, term.coefficient))


def _regrid(w: Workspace, members: Sequence[_Gathered]) -> list[Part] | None:
    """Parts of one form as grids; None if they do not fall into a few, or are too few to matter."""
    first = members[0]
    factors = [
        replace(same[0], choices=np.concatenate([factor.choices for factor in same]))
        for same in zip(*(member.factors for member in members), strict=True)
    ]
    grids = _grids(factors)
    if grids is None or sum(grid.size for grid in grids) < LEAST:
        return None
    positions = np.concatenate([member.part.positions for member in members])
    return [_grid(w, (), positions[:, None], first.term, factors, grid) for grid in grids]


# ------------------------------------------------------------------------------------------------------ grids


def _grids(factors: Sequence[Varying]) -> list[Index] | None:
    """The members as arrays, context by target, that cover them; None if they do not fall into a few such grids."""
    context = next((f for f in factors if f.varies and f.stage is Stage.CONTEXT), None)
    target = next((f for f in factors if f.varies and f.stage is Stage.CANDIDATE), None)
    if context is None or target is None:
        return None
    points = list(zip(context.choices.tolist(), target.choices.tolist(), strict=True))
    member = {point: i for i, point in enumerate(points)}
    if len(member) < len(points):
        return None
    grids = _by_columns([(b, a) for a, b in points])
    if len(grids) <= min(MOST_GRIDS, len(points) // 2):  # each target field in one grid, so that it is read once
        return [np.array([[member[a, b] for b in rows] for a in columns]) for columns, rows in grids.items()]
    grids = _by_columns(points)
    if len(grids) <= min(MOST_GRIDS, len(points) // 2):
        return [np.array([[member[a, b] for b in columns] for a in rows]) for columns, rows in grids.items()]
    return None


def _by_columns(points: Sequence[tuple[int, int]]) -> dict[tuple[int, ...], list[int]]:
    """Grids that cover `points`: the rows that have the same columns."""
    columns: dict[int, list[int]] = {}
    for a, b in points:
        columns.setdefault(a, []).append(b)
    grids: dict[tuple[int, ...], list[int]] = {}
    for a, found in columns.items():
        grids.setdefault(tuple(sorted(found)), []).append(a)
    return grids


def _grid(w: Workspace, own: Group, positions: Index, term: Term, factors: Sequence[Varying], members: Index) -> Part:
    """The members of one grid as one part; an axis of size one is none. `positions`: [member, own places]."""
    members = members.squeeze()
    summed = term.summed
    if members.ndim == 1:
        factors, summed = varying.shared(w, [factor.of(members) for factor in factors], summed)
        members_of = np.arange(members.size, dtype=np.int64)
    else:
        members_of = members
    axes = tuple(w.axes.fresh(size) for size in members.shape)
    product = Term(tuple(varying.at(w, factor, members_of, axes) for factor in factors), summed, term.coefficient)
    return Part(positions[members.reshape(-1)].reshape(-1), (*axes, *own), settle(w, [product]))
