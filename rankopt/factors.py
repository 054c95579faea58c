"""How the two factors of a product enter it: as their pending terms, or evaluated first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankopt.axes import Axis
from rankopt.contraction import Sketch, cost, sketch
from rankopt.evaluate import estimate, force
from rankopt.values import Sum, Term
from rankopt.workspace import Workspace


@dataclass(frozen=True, slots=True)
class _Factor:
    """One way in which a node can enter a product: as its pending terms, or evaluated first (at a price)."""

    node: Sum
    forced: bool
    cost: float
    products: tuple[tuple[Sketch, ...], ...]
    summed: frozenset[Axis]

    def terms(self, w: Workspace) -> tuple[Term, ...]:
        return (Term((force(w, self.node),)),) if self.forced else self.node.terms


def _factors(w: Workspace, node: Sum) -> list[_Factor]:
    operand = node.operand
    forced_cost = 0.0
    if operand is not None:
        evaluated = _Factor(node, True, 0.0, ((sketch(operand),),), frozenset())
        return [evaluated]
    else:
        forced_cost = w.policy.reluctance * estimate(w, node.terms)
    summed = frozenset().union(*(term.summed for term in node.terms))
    stage = max(operand.tensor.stage for term in node.terms for operand in term.operands)
    pending = tuple(tuple(sketch(operand) for operand in term.operands) for term in node.terms)
    forced = _Factor(node, True, forced_cost, ((Sketch(node.axes, stage),),), frozenset())
    if not w.policy.compose and any(len(term.operands) > 1 for term in node.terms):
        return [forced]
    return [_Factor(node, False, 0.0, pending, summed), forced]


def choose(w: Workspace, x: Sum, y: Sum, summed: frozenset[Axis]) -> tuple[Sequence[Term], Sequence[Term]]:
    """For each factor: multiply its pending terms, or evaluate it first? By price; pending wins a draw."""
    best: tuple[float, _Factor, _Factor] | None = None
    for p in _factors(w, x):
        for q in _factors(w, y):
            if _too_large(w, p, q):
                continue
            price = p.cost + q.cost
            if summed:
                gone = summed | p.summed | q.summed
                price += sum(_price(w, (*a, *b), gone) for a in p.products for b in q.products)
            elif p.forced or q.forced:
                price += w.profile.call
            else:
                price = 0.0
            if best is None or price < best[0]:
                best = price, p, q
    if best is None:
        return [Term((force(w, x),))], [Term((force(w, y),))]
    return best[1].terms(w), best[2].terms(w)


def _too_large(w: Workspace, p: _Factor, q: _Factor) -> bool:
    """Whether the product would have too many terms, or too long ones."""
    longest = max(map(len, p.products)) + max(map(len, q.products))
    many = len(p.products) * len(q.products) > w.limits.terms and not (p.forced and q.forced)
    return longest > 2 * w.policy.operands or many


def _price(w: Workspace, sketches: tuple[Sketch, ...], gone: frozenset[Axis]) -> float:
    """What it costs to multiply operands and sum over the axes `gone`."""
    kept = dict.fromkeys(axis for s in sketches for axis in s.axes if axis not in gone)
    return cost(w, sketches, kept)
