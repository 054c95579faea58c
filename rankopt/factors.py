"""How the two factors of a product enter it: as their pending terms, with like terms added up, or evaluated first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankopt.axes import Axis
from rankopt.contraction import Sketch, cost, sketch
from rankopt.evaluate import Like, collected_price, estimate, force, like_terms
from rankopt.shared import product, through_shared
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
        ways.append(_collected(w, node, alike))
    return [*ways, forced]


def _evaluated(w: Workspace, node: Sum, cost: float) -> _Factor:
    stage = max(operand.tensor.stage for term in node.terms for operand in term.operands)
    return _Factor(cost, ((Sketch(node.axes, stage),),), lambda: (Term((force(w, node),)),), forced=True)


def _collected(w: Workspace, node: Sum, alike: Sequence[Term | Like]) -> _Factor:
    """Like terms as one: A x_n + B x_n = (A + B) x_n. What is multiplied by it is multiplied once.

    Whoever reads the node after that finds the terms collected: it has been paid for.
    """

    def terms() -> Sequence[Term]:
        node.terms = tuple(x.term(w) if isinstance(x, Like) else x for x in alike)
        return node.terms

    cost = sum(collected_price(w, item.cofactors) for item in alike if isinstance(item, Like))
    products = tuple(item.sketches if isinstance(item, Like) else _sketches(item) for item in alike)
    summed = frozenset().union(*(item.summed for item in alike))
    return _Factor(cost, products, terms, summed)


def _sketches(term: Term) -> tuple[Sketch, ...]:
    return tuple(map(sketch, term.operands))


def _summed(terms: Sequence[Term]) -> frozenset[Axis]:
    return frozenset().union(*(term.summed for term in terms))


def products(w: Workspace, x: Sum, y: Sum, summed: frozenset[Axis]) -> list[Term]:
    """The products of the terms of `x` and `y`, summed over `summed`, in the cheapest way that was found."""
    best = _choose(w, x, y, summed)
    for one, other in ((x, y), (y, x)) if best is not None and w.policy.compose else ():
        price, terms = through_shared(w, one, other, summed)
        if terms and best is not None and price + collected_price(w, terms) < best[0]:
            return terms
    if best is None:
        return [product(w, Term((force(w, x),)), Term((force(w, y),)), summed)]
    return [product(w, p, q, summed) for p in best[1].terms() for q in best[2].terms()]


def _choose(w: Workspace, x: Sum, y: Sum, summed: frozenset[Axis]) -> tuple[float, _Factor, _Factor] | None:
    """The way in which each factor enters the product at the lowest price, which comes first; pending wins a draw."""
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
    return best


def _too_large(w: Workspace, p: _Factor, q: _Factor) -> bool:
    """Whether the product would have too many terms, or too long ones."""
    longest = max(map(len, p.products)) + max(map(len, q.products))
    many = len(p.products) * len(q.products) > w.limits.terms and not (p.forced and q.forced)
    return longest > 2 * w.policy.operands or many


def _price(w: Workspace, sketches: tuple[Sketch, ...], gone: frozenset[Axis]) -> float:
    """What it costs to multiply operands and sum over the axes `gone`."""
    kept = dict.fromkeys(axis for s in sketches for axis in s.axes if axis not in gone)
    return cost(w, sketches, kept)
