"""How the two factors of a product enter it: as their pending terms, with like terms added up, or evaluated first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankopt.axes import Axis
from rankopt.contraction import Sketch, cost, sketch
from rankopt.evaluate import Like, estimate, force, like_terms
from rankopt.values import Sum, Term
from rankopt.workspace import Workspace


@dataclass(frozen=True, slots=True)
class _Factor:
    """One way in which a node can enter a product, at a price."""

    cost: float
    products: tuple[tuple[Sketch, ...], ...]
    terms: Callable[[], Sequence[Term]]
    summed: frozenset[Axis] = frozenset()
    forced: bool = False


def _factors(w: Workspace, node: Sum) -> list[_Factor]:
    """As its pending terms, with like terms added up, or evaluated."""
    if node.operand is not None:
        return [_evaluated(w, node, 0.0)]
    forced = _evaluated(w, node, 0.0 if node.known else w.policy.reluctance * estimate(w, node.terms))
    if not w.policy.compose and any(len(term.operands) > 1 for term in node.terms):
        return [forced]
    ways = [_Factor(0.0, tuple(map(_sketches, node.terms)), lambda: node.terms, _summed(node.terms))]
    alike = like_terms(w, node.terms) if w.policy.compose else node.terms
    if len(alike) < len(node.terms):
        ways.append(_collected(w, alike))
    return [*ways, forced]


def _evaluated(w: Workspace, node: Sum, cost: float) -> _Factor:
    stage = max(operand.tensor.stage for term in node.terms for operand in term.operands)
    return _Factor(cost, ((Sketch(node.axes, stage),),), lambda: (Term((force(w, node),)),), forced=True)


def _collected(w: Workspace, alike: Sequence[Term | Like]) -> _Factor:
    """Like terms as one: A x_n + B x_n = (A + B) x_n. What is multiplied by it is multiplied once."""
    cost = sum(estimate(w, item.cofactors) for item in alike if isinstance(item, Like))
    products = tuple(item.sketches if isinstance(item, Like) else _sketches(item) for item in alike)
    summed = frozenset().union(*(item.summed for item in alike))
    return _Factor(cost, products, lambda: [x.term(w) if isinstance(x, Like) else x for x in alike], summed)


def _sketches(term: Term) -> tuple[Sketch, ...]:
    return tuple(map(sketch, term.operands))


def _summed(terms: Sequence[Term]) -> frozenset[Axis]:
    return frozenset().union(*(term.summed for term in terms))


def choose(w: Workspace, x: Sum, y: Sum, summed: frozenset[Axis]) -> tuple[Sequence[Term], Sequence[Term]]:
    """The terms of each factor, in the way in which their products are cheapest; pending wins a draw."""
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
    return best[1].terms(), best[2].terms()


def _too_large(w: Workspace, p: _Factor, q: _Factor) -> bool:
    """Whether the product would have too many terms, or too long ones."""
    longest = max(map(len, p.products)) + max(map(len, q.products))
    many = len(p.products) * len(q.products) > w.limits.terms and not (p.forced and q.forced)
    return longest > 2 * w.policy.operands or many


def _price(w: Workspace, sketches: tuple[Sketch, ...], gone: frozenset[Axis]) -> float:
    """What it costs to multiply operands and sum over the axes `gone`."""
    kept = dict.fromkeys(axis for s in sketches for axis in s.axes if axis not in gone)
    return cost(w, sketches, kept)
