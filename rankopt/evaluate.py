"""Evaluation: from a deferred node to one tensor of the program.

`force` is the fallback of every law: whatever cannot stay pending is computed, over the axes that it really varies
along, once (the result is remembered on the node), and in the cheapest contraction order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rankopt import operands as ops
from rankopt.axes import ROW, Axis, Group, sizes, volume
from rankopt.contraction import Sketch, cost, sketch
from rankopt.expressions import Expr, Stage
from rankopt.operands import Index, Operand
from rankopt.products import Product, join_products, multiply, multiply_add, plan
from rankopt.program import reshaped
from rankopt.values import Cat, Node, Part, Term
from rankopt.workspace import Workspace


def force(w: Workspace, node: Node) -> Operand:
    """The value of `node`, dense over the axes along which it varies."""
    if node.forced is None:
        if isinstance(node, Cat):
            node.forced = _in_order(w, node)
        else:
            node.forced = node.known or add_up(w, collect(w, node.terms))
    return node.forced


def estimate(w: Workspace, terms: Iterable[Term]) -> float:
    """Estimated nanoseconds of evaluating `terms` (not of adding them up)."""
    return sum(
        cost(w, [sketch(operand) for operand in term.operands], term.axes) for term in terms if not term.is_operand
    )


def evaluate(w: Workspace, term: Term) -> Operand:
    """The value of one term."""
    scale, term = _place_coefficient(w, term)
    result = multiply(w, plan(w, term.operands, term.axes))
    return Operand(w.program.scale(result.tensor, scale), result.axes)


def add_up(w: Workspace, terms: Sequence[Term]) -> Operand:
    """The sum of `terms`: what is small first, a matrix product fused with what it is added to."""
    pending: list[tuple[float, Operand | Product]] = []
    for term in terms:
        scale, placed = _place_coefficient(w, term)
        pending.append((scale, plan(w, placed.operands, placed.axes)))
    pending = join_products(w, pending)
    pending.sort(key=lambda item: (_is_matrix_product(item[1]), isinstance(item[1], Product), _rank(item[1])))
    scale, first = pending[0]
    total = multiply(w, first)
    total = Operand(w.program.scale(total.tensor, scale), total.axes)
    for scale, item in pending[1:]:
        fused = multiply_add(w, total, item, scale) if isinstance(item, Product) else None
        total = fused if fused is not None else _add(w, total, multiply(w, item), scale)
    return total


def _is_matrix_product(item: Operand | Product) -> bool:
    return isinstance(item, Product) and any(axis not in item.kept for axis in item.x.axes)


def _rank(item: Operand | Product) -> tuple[bool, int]:
    axes = item.axes if isinstance(item, Operand) else tuple(item.kept)
    return ROW in axes, len(axes)


def _add(w: Workspace, x: Operand, y: Operand, scale: float) -> Operand:
    if scale == -1.0:
        return ops.pointwise(w, w.program.sub, [x, y])
    return ops.pointwise(w, w.program.add, [x, Operand(w.program.scale(y.tensor, scale), y.axes)])


def _place_coefficient(w: Workspace, term: Term) -> tuple[float, Term]:
    """Moves the coefficient onto a weight or a context operand, where it is paid once; else returns it."""
    if term.coefficient in (1.0, -1.0) or len(term.operands) == 1:
        return term.coefficient, Term(term.operands, term.summed)
    i = min(range(len(term.operands)), key=lambda k: (term.operands[k].tensor.stage, len(term.operands[k].axes)))
    chosen = term.operands[i]
    if chosen.tensor.stage is Stage.CANDIDATE:
        return term.coefficient, Term(term.operands, term.summed)
    scaled = Operand(w.program.scale(chosen.tensor, term.coefficient), chosen.axes)
    return 1.0, Term((*term.operands[:i], scaled, *term.operands[i + 1 :]), term.summed)


# ------------------------------------------------------------------------------------------------------ collect


def collect(w: Workspace, terms: Sequence[Term]) -> list[Term]:
    """Terms that are linear in the same operand become one, where that is cheaper than to evaluate each."""
    if not w.policy.compose:
        return list(terms)
    result: list[Term] = []
    for item in like_terms(w, terms):
        if isinstance(item, Term):
            result.append(item)
        else:
            together, _ = item.cheaper(w)
            result.extend([item.term(w)] if together else item.members)
    return result


def collected_price(w: Workspace, terms: Sequence[Term]) -> float:
    """Estimated nanoseconds of evaluating `terms` once like ones are collected (not of adding them up)."""
    return sum(item.cheaper(w)[1] if isinstance(item, Like) else estimate(w, [item]) for item in like_terms(w, terms))


@dataclass(frozen=True, slots=True)
class Like:
    """Terms that are linear in the same operand: their cofactors, which are rank-2, may be added up first.

    A x_n + B x_n = (A + B) x_n        one product per candidate instead of two
    A C + B C     = (A + B) C          and among the cofactors one per request
    """

    members: tuple[Term, ...]
    operand: Operand
    cofactors: tuple[Term, ...]
    summed: frozenset[Axis]

    @property
    def sketches(self) -> tuple[Sketch, Sketch]:
        """The two factors that remain."""
        axes = tuple(dict.fromkeys(axis for term in self.cofactors for axis in term.axes))
        stage = max(operand.tensor.stage for term in self.cofactors for operand in term.operands)
        return sketch(self.operand), Sketch(axes, stage)

    @property
    def axes(self) -> Group:
        """Those of their sum."""
        every = dict.fromkeys(axis for factor in self.sketches for axis in factor.axes)
        return tuple(axis for axis in every if axis not in self.summed)

    def cheaper(self, w: Workspace) -> tuple[bool, float]:
        """Whether to add up the cofactors and not the products; and the price of what is better, without the sum."""
        _, cofactor = self.sketches
        apart = estimate(w, self.members)
        together = collected_price(w, self.cofactors) + cost(w, self.sketches, self.axes)
        sum_of_cofactors = self._added(w, cofactor.axes) if cofactor.stage is not Stage.WEIGHT else 0.0
        pays = together + sum_of_cofactors < apart + self._added(w, self.axes)
        return pays, together if pays else apart

    def _added(self, w: Workspace, axes: Group) -> float:
        """Estimated nanoseconds of adding up as many terms as there are, over `axes`."""
        each = w.profile.call + w.profile.element * volume(axes, w.candidates)
        return (len(self.members) - 1) * each

    def term(self, w: Workspace) -> Term:
        """Their sum as one term, its cofactor evaluated."""
        return Term((self.operand, add_up(w, collect(w, self.cofactors))), self.summed)


def like_terms(w: Workspace, terms: Sequence[Term]) -> list[Term | Like]:
    """The terms, those together that are linear in the same operand along the same axes."""
    groups: dict[object, list[tuple[Term, int | None]]] = {}
    for term, number in zip(terms, _linear_in(terms), strict=True):
        key = id(term) if number is None else _place(term, term.operands[number])
        groups.setdefault(key, []).append((term, number))
    return [group[0][0] if len(group) == 1 else _like(w, group) for group in groups.values()]


def _place(term: Term, operand: Operand) -> object:
    """What products have in common that are linear in the same tensor: which of its dims they keep, and as what."""
    return operand.tensor.serial, tuple(None if axis in term.summed else axis for axis in operand.axes)


def _linear_in(terms: Sequence[Term]) -> list[int | None]:
    """Of each product the only rank-3 operand, by number; without one the largest that another product has, too."""
    shared = Counter(key for term in terms for key in {_place(term, operand) for operand in term.operands})
    chosen: list[int | None] = []
    for term in terms:
        numbers = [i for i, operand in enumerate(term.operands) if operand.has_rows]
        if not numbers:
            numbers = [i for i, operand in enumerate(term.operands) if shared[_place(term, operand)] > 1]
            numbers = sorted(numbers, key=lambda i: len(term.operands[i].axes))[-1:]
        chosen.append(numbers[0] if len(numbers) == 1 and len(term.operands) > 1 else None)
    return chosen


def _like(w: Workspace, group: Sequence[tuple[Term, int | None]]) -> Like:
    """Their cofactors under common axes."""
    first, number = group[0]
    assert number is not None
    operand = first.operands[number]
    common = tuple(w.axes.fresh(axis.size) if axis in first.summed else axis for axis in operand.axes)
    cofactors: list[Term] = []
    for term, own in group:
        assert own is not None
        axes = term.operands[own].axes
        names = {old: new for old, new in zip(axes, common, strict=True) if old is not new}
        rest = tuple(o.rename(names) for i, o in enumerate(term.operands) if i != own)
        cofactors.append(Term(rest, term.summed - set(axes), term.coefficient))
    gone = frozenset(common) - frozenset(operand.axes)
    return Like(tuple(term for term, _ in group), Operand(operand.tensor, common), tuple(cofactors), gone)


# ------------------------------------------------------------------------------------------------------ Cat


def _in_order(w: Workspace, cat: Cat) -> Operand:
    """A Cat as one tensor. Places that the parts hold out of order are put right piece by piece, or by one gather."""
    row = _side_by_side(w, cat, cat.axis)
    positions = np.concatenate(row.positions)
    if np.array_equal(positions, np.arange(cat.axis.size)):
        return Operand(row.joined(w), row.order)
    pieces = list(_pieces(row.positions))
    written = volume(row.order, w.candidates)
    run = volume(row.order[row.at + 1 :], w.candidates)
    if w.profile.view * len(pieces) > w.profile.call + w.profile.gathered(written, run):
        return Operand(w.program.index_select(row.joined(w), row.at, np.argsort(positions)), row.order)
    cut = [w.program.index_select(row.tensors[part], row.at, places) for part, places in pieces]
    return Operand(w.program.cat(cut, row.at), row.order)


def _pieces(positions: Sequence[Index]) -> Iterator[tuple[int, Index]]:
    """The parts cut so that their pieces lie in order: part by number, and places that it holds in a row."""
    order = np.argsort(np.concatenate(positions))
    owner = np.concatenate([np.full(len(places), part) for part, places in enumerate(positions)])[order]
    local = np.concatenate([np.arange(len(places)) for places in positions])[order]
    cuts = np.flatnonzero((np.diff(owner) != 0) | (np.diff(local) != 1)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(order)]):
        yield int(owner[start]), local[start:end]


def join(w: Workspace, cat: Cat, axis: Axis) -> tuple[Operand, Index]:
    """The parts of a Cat side by side along `axis`, and the position in the Cat of each place."""
    row = _side_by_side(w, cat, axis)
    return Operand(row.joined(w), row.order), np.concatenate(row.positions)


@dataclass(frozen=True, slots=True)
class _Row:
    """Evaluated parts of a Cat, sorted by position, with dims `order`; dim `at` runs along the concatenation."""

    tensors: list[Expr]
    positions: list[Index]
    order: Group
    at: int
    stacked: bool
    """Whether each part is one place, and lacks the dim."""

    def joined(self, w: Workspace) -> Expr:
        """All parts in one tensor."""
        return _stack(w, self.tensors, self.order, self.at) if self.stacked else w.program.cat(self.tensors, self.at)


def _side_by_side(w: Workspace, cat: Cat, axis: Axis) -> _Row:
    parts = sorted(cat.parts, key=lambda part: int(part.positions[0]))
    forced = [force(w, part.node) for part in parts]
    order = ops.merge_axes([tuple(a for a in o.axes if a not in p.axes) for p, o in zip(parts, forced, strict=True)])
    order = _place_axis(w, axis, order, [(p.axes, o.axes) for p, o in zip(parts, forced, strict=True)])
    at = order.index(axis)
    positions = [part.positions for part in parts]
    before, after = order[:at], order[at + 1 :]
    if all(not part.axes and len(operand.axes) + 1 == len(order) for part, operand in zip(parts, forced, strict=True)):
        return _Row([ops.arrange(w, o, (*before, *after)) for o in forced], positions, order, at, stacked=True)
    groups = _alike(parts, forced, (*before, *after))
    tensors = [_joined_before_repeated(w, group, before, after) for group in groups]
    joined = [np.concatenate([part.positions for part, _ in group]) for group in groups]
    return _Row(tensors, joined, order, at, stacked=False)


Evaluated = tuple[Part, Operand]
"""A part of a Cat, and its value."""


def _alike(parts: Sequence[Part], forced: Sequence[Operand], axes: Group) -> list[list[Evaluated]]:
    """Neighbours that have to be repeated along the same axes, together."""
    groups: list[list[Evaluated]] = []
    last: frozenset[Axis] = frozenset()
    for part, operand in zip(parts, forced, strict=True):
        repeated = frozenset(axes) - set(operand.axes)
        if repeated and repeated == last:
            groups[-1].append((part, operand))
        else:
            groups.append([(part, operand)])
        last = repeated
    return groups


def _joined_before_repeated(w: Workspace, group: Sequence[Evaluated], before: Group, after: Group) -> Expr:
    """Neighbours of a concatenation as one tensor, repeated once and not one by one."""
    if len(group) > 1:
        here = set(group[0][1].axes)
        near, far = tuple(a for a in before if a in here), tuple(a for a in after if a in here)
        tensors = [_part_tensor(w, part, operand, near, far) for part, operand in group]
        own = w.axes.fresh(sum(len(part.positions) for part, _ in group))
        return ops.expand(w, Operand(w.program.cat(tensors, len(near)), (*near, own, *far)), (*before, own, *after))
    return _part_tensor(w, *group[0], before, after)


def _part_tensor(w: Workspace, part: Part, operand: Operand, before: Group, after: Group) -> Expr:
    """The value of a part with one dim for its own axes."""
    shape = [*map(ops.size_of, before), int(np.prod(sizes(part.axes))), *map(ops.size_of, after)]
    return w.program.view(ops.expand(w, operand, (*before, *part.axes, *after)), shape)


def _stack(w: Workspace, tensors: Sequence[Expr], order: Group, at: int) -> Expr:
    """Tensors of one place each, in order, as one call."""
    shape = tuple(ops.size_of(axis) for axis in order)
    if at == 0 and (sources := reshaped(tensors)):
        return w.program.view(w.program.cat(sources, 0), shape)
    return w.program.stack(tensors, at, joined=w.profile.stacked_apart)


def _place_axis(w: Workspace, axis: Axis, order: Group, parts: Sequence[tuple[Group, Group]]) -> Group:
    """Puts the concatenated axis where the largest part has its own."""
    for own, axes in sorted(parts, key=lambda part: -len(part[1])):
        inside = [a for a in own if a in axes]
        if inside:
            after = [a for a in axes[axes.index(inside[-1]) + 1 :] if a in order]
            at = order.index(after[0]) if after else len(order)
            return (*order[:at], axis, *order[at:])
    at = 1 if order[:1] == (ROW,) and not w.policy.outermost else 0
    return (*order[:at], axis, *order[at:])
