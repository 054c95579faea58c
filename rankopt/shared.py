"""Products of terms: one by one, or first with what several of them share.

    (S a x_n + S b y_n) W  =  (W S) a x_n + (W S) b y_n

Term by term, each would be contracted in the order that is cheapest for it alone, and S is multiplied anew for each.
A head that reads deep cross layers is where it matters: every target half so far comes through the last layer's weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress

from rankopt.axes import Axis, Group
from rankopt.contraction import Sketch, cost, sketch
from rankopt.evaluate import evaluate
from rankopt.operands import Operand
from rankopt.values import Sum, Term
from rankopt.workspace import Workspace


def product(w: Workspace, p: Term, q: Term, summed: frozenset[Axis]) -> Term:
    """The product of two terms; the axes that each sums on its own must not meet."""
    q = apart_from(w, q, p.operands)
    present = {axis for operand in (*p.operands, *q.operands) for axis in operand.axes}
    coefficient = p.coefficient * q.coefficient
    for axis in summed - present:
        coefficient *= axis.size
    return Term((*p.operands, *q.operands), p.summed | q.summed | (summed & present), coefficient)


def apart_from(w: Workspace, term: Term, others: Iterable[Operand]) -> Term:
    """A term that sums no axis that `others` have: such axes get another name."""
    clash = term.summed & {axis for operand in others for axis in operand.axes}
    names = {axis: w.axes.fresh(axis.size) for axis in sorted(clash, key=lambda axis: axis.serial)}
    summed = frozenset(names.get(axis, axis) for axis in term.summed)
    return Term(tuple(operand.rename(names) for operand in term.operands), summed, term.coefficient)


@dataclass(frozen=True, slots=True)
class Split:
    """A term of one factor, cut into what the other factor meets first and the rest."""

    term: Term
    shared: tuple[Operand, ...]
    """Its rank-2 operands along a contracted axis."""
    rest: tuple[Operand, ...]
    links: Group
    """The axes that the term sums on its own and `shared` has, in order of appearance."""
    key: object
    """What terms have in common whose `shared` are the same but for the names of `links`, and whose rests keep the same
    of the contracted axes."""

    @staticmethod
    def of(term: Term, summed: frozenset[Axis]) -> Split:
        """The term cut for a contraction over `summed`."""
        own = [not operand.has_rows and not summed.isdisjoint(operand.axes) for operand in term.operands]
        shared = tuple(sorted(compress(term.operands, own), key=lambda operand: operand.tensor.serial))
        rest = tuple(operand for operand, is_own in zip(term.operands, own, strict=True) if not is_own)
        links = tuple(dict.fromkeys(axis for operand in shared for axis in operand.axes if axis in term.summed))
        outside = {axis for operand in rest for axis in operand.axes}
        names = {axis: (i, axis in outside) for i, axis in enumerate(links)}
        places = [(o.tensor.serial, tuple(names.get(axis, (axis, axis in outside)) for axis in o.axes)) for o in shared]
        key = (tuple(places), frozenset(summed & outside)) if shared and rest else id(term)
        return Split(term, shared, rest, links, key)

    def first(self, operand: Operand, summed: frozenset[Axis]) -> Term:
        """The product of `operand` and what is shared."""
        outside = {axis for rest in self.rest for axis in rest.axes}
        return Term((operand, *self.shared), (summed | set(self.links)) - outside)

    def times(self, value: Operand, links: Group, summed: frozenset[Axis]) -> Term:
        """The rest of the term and the value of that product, which has `links` for names."""
        operands = (value.rename(dict(zip(links, self.links, strict=True))), *self.rest)
        present = {axis for operand in operands for axis in operand.axes}
        return Term(operands, (self.term.summed | summed) & present, self.term.coefficient)


def through_shared(w: Workspace, x: Sum, y: Sum, summed: frozenset[Axis]) -> tuple[float, list[Term]]:
    """The terms of `x y` where `y`, a rank-2 operand, meets first what several terms of `x` share, and what these first
    products cost; none if that does not even pay term by term."""
    operand = y.operand
    if operand is None or operand.has_rows or x.operand or not summed or not summed <= set(operand.axes):
        return 0.0, []
    groups: dict[object, list[Split]] = {}
    for term in x.terms:
        split = Split.of(apart_from(w, term, [operand]), summed)
        groups.setdefault(split.key, []).append(split)
    price = 0.0
    terms: list[Term] = []
    paid = False
    for group in groups.values():
        first = group[0].first(operand, summed)
        if len(group) > 1 and _pays(w, group, operand, summed):
            paid = True
            price += _cost(w, first)
            value = evaluate(w, first)
            terms += [split.times(value, group[0].links, summed) for split in group]
        else:
            terms += [product(w, split.term, Term((operand,)), summed) for split in group]
    return (price, terms) if paid else (0.0, [])


def _pays(w: Workspace, group: Sequence[Split], operand: Operand, summed: frozenset[Axis]) -> bool:
    """Whether products take less time through what they share, each for itself."""
    first = group[0].first(operand, summed)
    value = Sketch(first.axes, max(o.tensor.stage for o in first.operands))
    apart, through = 0.0, _cost(w, first)
    for split in group:
        whole = product(w, split.term, Term((operand,)), summed)
        apart += _cost(w, whole)
        names = dict(zip(group[0].links, split.links, strict=True))
        renamed = Sketch(tuple(names.get(axis, axis) for axis in value.axes), value.stage)
        through += cost(w, [renamed, *map(sketch, split.rest)], whole.axes)
    return through < apart


def _cost(w: Workspace, term: Term) -> float:
    return cost(w, [sketch(operand) for operand in term.operands], term.axes)
