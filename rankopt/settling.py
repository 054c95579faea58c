"""What of a sum stays pending, and what is evaluated where it arises: the normal form of a `Sum`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from rankopt.axes import Axis, Group, volume
from rankopt.contraction import Sketch
from rankopt.evaluate import collect, evaluate, force
from rankopt.expressions import Stage
from rankopt.operands import Operand
from rankopt.values import Sum, Term, leaf
from rankopt.workspace import Workspace


def settle(w: Workspace, terms: Sequence[Term]) -> Sum:
    """A sum in normal form: what need not stay pending is evaluated, what can be merged is merged.

    - a term without rows is evaluated (once per request), unless its value outgrows its factors;
    - evaluated terms that cover each other's axes are added up;
    - next to an evaluated rank-3 term that covers all axes, nothing is gained by staying pending.
    """
    if len(terms) == 1 and _at_once(w, terms[0]):
        return Sum((terms[0],), evaluate(w, terms[0]))
    pending: list[Term] = []
    done: list[Term] = []
    for term in terms:
        term = _compact(w, term)
        if len(term.operands) == 1 and not term.summed:
            done.append(term)
        elif _at_once(w, term):
            done.append(Term((evaluate(w, term),)))
        else:
            pending.append(term)
    done = _merge(w, done)
    node = Sum((*done, *pending))
    if pending and len(node.terms) > w.limits.terms:
        node = Sum(tuple(collect(w, node.terms)))
    if pending and (len(node.terms) > w.limits.terms or (_covered(done, node.axes) and not w.policy.compose)):
        return leaf(force(w, node))
    if len(node.terms) > 1 and not w.policy.defer:
        return leaf(force(w, node))
    return node


def _at_once(w: Workspace, term: Term) -> bool:
    """Whether a product is evaluated where it arises."""
    if len(term.operands) == 1 and not term.summed:
        return False
    return not w.policy.defer or len(term.operands) > w.policy.operands or worth_evaluating(w, term)


def worth_evaluating(w: Workspace, term: Term) -> bool:
    """Whether a product is rank-2, and its value does not outgrow its factors."""
    if term.has_rows:
        return False
    factors = sum(operand.volume(w.candidates) for operand in term.operands)
    return Sketch(term.axes, Stage.CONTEXT).volume(w.candidates) <= 2 * factors


def _compact(w: Workspace, term: Term) -> Term:
    """A long product made shorter: rank-2 operands that share a summed axis are multiplied, if nothing grows."""
    operands = list(term.operands)
    while len(operands) > w.policy.operands:
        best: tuple[float, int, int] | None = None
        for i, j in combinations(range(len(operands)), 2):
            x, y = operands[i], operands[j]
            kept = _outside(operands, (i, j), term)
            size = volume([axis for axis in dict.fromkeys((*x.axes, *y.axes)) if axis in kept], w.candidates)
            grows = size > x.volume(w.candidates) + y.volume(w.candidates)
            if not (x.has_rows or y.has_rows or grows) and (best is None or size < best[0]):
                best = size, i, j
        if best is None:
            break
        _, i, j = best
        pair = Term((operands[i], operands[j]), frozenset(_gone(operands, (i, j), term)))
        operands = [evaluate(w, pair), *(o for k, o in enumerate(operands) if k not in (i, j))]
    present = {axis for operand in operands for axis in operand.axes}
    return Term(tuple(operands), term.summed & present, term.coefficient)


def _outside(operands: Sequence[Operand], pair: tuple[int, int], term: Term) -> set[Axis]:
    """The axes that the product of a pair must keep."""
    others = {axis for k, operand in enumerate(operands) if k not in pair for axis in operand.axes}
    return others | set(term.axes)


def _gone(operands: Sequence[Operand], pair: tuple[int, int], term: Term) -> set[Axis]:
    """The axes that the product of a pair sums."""
    kept = _outside(operands, pair, term)
    return {axis for k in pair for axis in operands[k].axes if axis not in kept}


def _merge(w: Workspace, terms: Sequence[Term]) -> list[Term]:
    """Adds up evaluated terms when the axes of one contain those of the other and both have rows, or neither."""
    merged: list[Term] = []
    for term in sorted(terms, key=lambda term: len(term.axes)):
        operand = term.operands[0]
        for i, other in enumerate(merged):
            if set(other.axes) <= set(term.axes) and other.has_rows == term.has_rows:
                total = force(w, Sum((other, term)))
                merged[i] = Term((total,))
                break
        else:
            merged.append(Term((operand,), frozenset(), term.coefficient))
    return merged


def _covered(terms: Iterable[Term], axes: Group) -> bool:
    """Whether a rank-3 term has all of `axes`."""
    return any(term.has_rows and set(axes) <= set(term.axes) for term in terms)
