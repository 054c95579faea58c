"""The algebra of deferred nodes: sums, products with contraction, reductions, elementwise functions.

Every law here is one of three kinds of distribution:

    over Cat        f(cat(a, b)) = cat(f(a), f(b));  a contracted Cat becomes a sum of products
    over Sum        (a + b) c = a c + b c, kept pending
    by evaluation   what does not distribute is forced first

All functions take nodes whose axes have already been unified: an axis means the same thing in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rankopt import operands as ops
from rankopt.axes import Axis, Group, sizes, volume
from rankopt.contraction import Sketch, cost, sketch
from rankopt.evaluate import Like, collect, estimate, evaluate, force, join, like_terms
from rankopt.operands import Operand
from rankopt.program import Expr, Stage
from rankopt.structure import concatenate, pick
from rankopt.values import Cat, Node, Part, Sum, Term, leaf
from rankopt.workspace import Workspace


def part_of(w: Workspace, node: Node, axis: Axis, part: Part) -> Node:
    """The places of `node` along `axis` that `part` covers, under the part's own axes."""
    return pick(w, node, (axis,), part.positions.reshape(sizes(part.axes)), part.axes)


def _first_cat(nodes: Iterable[Node]) -> Cat | None:
    return next((node for node in nodes if isinstance(node, Cat)), None)


def _distribute(w: Workspace, nodes: Sequence[Node], cat: Cat, law: Callable[[list[Node], Part], Node]) -> list[Part]:
    """`law` on the nodes' places under each part of `cat`, one of `nodes`.

    Parts with rows come first: what they have evaluated is there, at no further price, when a rank-2 part decides.
    """
    results: dict[int, Part] = {}
    for i, part in sorted(enumerate(cat.parts), key=lambda item: not item[1].node.has_rows):
        results[i] = Part(part.positions, part.axes, law([part_of(w, n, cat.axis, part) for n in nodes], part))
    return [results[i] for i in range(len(cat.parts))]


# ------------------------------------------------------------------------------------------------------ add, scale


def scale(node: Node, factor: float) -> Node:
    """`factor * node`; the factor stays pending."""
    if factor == 1.0:
        return node
    if isinstance(node, Cat):
        return Cat(node.axis, tuple(Part(p.positions, p.axes, scale(p.node, factor)) for p in node.parts))
    return Sum(tuple(Term(t.operands, t.summed, t.coefficient * factor) for t in node.present_terms))


def add(w: Workspace, x: Node, y: Node) -> Node:
    """`x + y`, term by term, part by part."""
    cat = _first_cat((x, y))
    if cat is not None:
        parts = _distribute(w, (x, y), cat, lambda nodes, _: add(w, nodes[0], nodes[1]))
        return concatenate(w, cat.axis, parts)
    assert isinstance(x, Sum)
    assert isinstance(y, Sum)
    return settle(w, (*x.present_terms, *y.present_terms))


def add_all(w: Workspace, nodes: Sequence[Node]) -> Node:
    """The sum of `nodes`, brought into normal form once."""
    sums = [node for node in nodes if isinstance(node, Sum)]
    whole: Node | None = settle(w, [term for node in sums for term in node.present_terms]) if sums else None
    for node in nodes:
        if isinstance(node, Cat):
            whole = node if whole is None else add(w, whole, node)
    assert whole is not None
    return whole


def _is_product(node: Sum) -> bool:
    """Whether a node is one elementwise product. Where it is summed, it need not be evaluated first."""
    return len(node.terms) == 1 and not node.terms[0].summed


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
    return not w.policy.defer or len(term.operands) > w.policy.operands or _worth_evaluating(w, term)


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
    kept = _outside(operands, pair, term)
    return {axis for k in pair for axis in operands[k].axes if axis not in kept}


def _worth_evaluating(w: Workspace, term: Term) -> bool:
    if term.has_rows:
        return False
    factors = sum(operand.volume(w.candidates) for operand in term.operands)
    return Sketch(term.axes, Stage.CONTEXT).volume(w.candidates) <= 2 * factors


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
    return any(term.has_rows and set(axes) <= set(term.axes) for term in terms)


# ------------------------------------------------------------------------------------------------------ products


def mul(w: Workspace, x: Node, y: Node) -> Node:
    """`x * y`, elementwise."""
    return contract(w, x, y, ())


def contract(w: Workspace, x: Node, y: Node, summed: Collection[Axis]) -> Node:
    """The product of `x` and `y`, summed over `summed`: linear, matmul, bmm and einsum of two.

    A Cat along a summed axis becomes a sum over its parts, any other Cat stays one: `Q K^T` of two Cats is a grid of
    blocks, each with its own rank.
    """
    cat = _first_cat((x, y))
    if cat is None:
        assert isinstance(x, Sum)
        assert isinstance(y, Sum)
        return _contract_sums(w, x, y, frozenset(summed))

    def law(nodes: list[Node], part: Part) -> Node:
        inner = [a for axis in summed for a in (part.axes if axis is cat.axis else (axis,))]
        return contract(w, nodes[0], nodes[1], inner)

    parts = _distribute(w, (x, y), cat, law)
    if cat.axis in summed:
        return add_all(w, [part.node for part in parts])
    return concatenate(w, cat.axis, parts)


def _contract_sums(w: Workspace, x: Sum, y: Sum, summed: frozenset[Axis]) -> Sum:
    if not summed and (_dense(x, y) or _both_rank2(w, x, y)):
        value = ops.pointwise(w, w.program.mul, [force(w, x), force(w, y)])
        return Sum((_product(w, _factored(w, x), _factored(w, y), frozenset()),), value)
    left, right = _choose(w, x, y, summed)
    return settle(w, [_product(w, p, q, summed) for p in left for q in right])


def _factored(w: Workspace, node: Sum) -> Term:
    """The node as one term: as the short product that it is, or evaluated."""
    short = len(node.terms) == 1 and 2 * len(node.terms[0].operands) <= w.policy.operands
    return node.terms[0] if short else Term((force(w, node),))


def _dense(x: Sum, y: Sum) -> bool:
    """Whether one of them is an evaluated rank-3 tensor over all axes of the product: deferring then gains nothing."""
    axes = {*x.axes, *y.axes}
    return any(
        operand is not None and operand.has_rows and axes <= set(operand.axes) for operand in (x.operand, y.operand)
    )


def _both_rank2(w: Workspace, x: Sum, y: Sum) -> bool:
    """Whether both are evaluated and rank-2, and their product does not outgrow them."""
    operands = [operand for operand in (x.operand, y.operand) if operand is not None]
    return len(operands) == 2 and _worth_evaluating(w, Term(tuple(operands)))


def _product(w: Workspace, p: Term, q: Term, summed: frozenset[Axis]) -> Term:
    """The product of two terms; the axes that each sums on its own must not meet."""
    clash = q.summed & {axis for operand in p.operands for axis in operand.axes}
    names = {axis: w.axes.fresh(axis.size) for axis in sorted(clash, key=lambda axis: axis.serial)}
    right = tuple(operand.rename(names) for operand in q.operands)
    present = {axis for operand in (*p.operands, *right) for axis in operand.axes}
    coefficient = p.coefficient * q.coefficient
    for axis in summed - present:
        coefficient *= axis.size
    inner = frozenset(names.get(axis, axis) for axis in q.summed)
    return Term((*p.operands, *right), p.summed | inner | (summed & present), coefficient)


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
    forced = _evaluated(w, node, w.policy.reluctance * estimate(w, node.terms))
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


def _choose(w: Workspace, x: Sum, y: Sum, summed: frozenset[Axis]) -> tuple[Sequence[Term], Sequence[Term]]:
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
    return best[1].terms(), best[2].terms()


def _too_large(w: Workspace, p: _Factor, q: _Factor) -> bool:
    longest = max(map(len, p.products)) + max(map(len, q.products))
    many = len(p.products) * len(q.products) > w.limits.terms and not (p.forced and q.forced)
    return longest > 2 * w.policy.operands or many


def _price(w: Workspace, sketches: tuple[Sketch, ...], gone: frozenset[Axis]) -> float:
    kept = dict.fromkeys(axis for s in sketches for axis in s.axes if axis not in gone)
    return cost(w, sketches, kept)


# ------------------------------------------------------------------------------------------------------ reductions


def total(w: Workspace, node: Node, summed: Collection[Axis]) -> Node:
    """The sum over `summed`. An axis along which a term is constant multiplies it."""
    if isinstance(node, Cat):
        if node.axis not in summed:
            parts = tuple(Part(p.positions, p.axes, total(w, p.node, summed)) for p in node.parts)
            return concatenate(w, node.axis, parts)
        rest = [axis for axis in summed if axis is not node.axis]
        return add_all(w, [total(w, p.node, [*p.axes, *rest]) for p in node.parts])
    terms: list[Term] = []
    for term in node.terms if _is_product(node) else node.present_terms:
        coefficient = term.coefficient
        for axis in set(summed) - set(term.axes):
            coefficient *= axis.size
        terms.append(Term(term.operands, term.summed | (set(summed) & set(term.axes)), coefficient))
    return settle(w, terms)


# ------------------------------------------------------------------------------------------------------ elementwise


def pointwise(w: Workspace, build: Callable[..., Expr], nodes: Sequence[Node]) -> Node:
    """An elementwise function: it passes through a Cat part by part, and forces a Sum."""
    cat = _first_cat(nodes)
    if cat is None:
        return leaf(ops.pointwise(w, build, [force(w, node) for node in nodes]))
    parts = _distribute(w, nodes, cat, lambda inner, _: pointwise(w, build, inner))
    node = concatenate(w, cat.axis, parts)
    return coalesce(w, node) if w.policy.coalesce or len(cat.parts) > w.limits.parts else node


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


def hoist(w: Workspace, node: Node, axes: Collection[Axis]) -> Node:
    """The same node with its Cats along other axes than `axes` outermost."""
    outer = _outer_cat(node, axes)
    if outer is None or (outer is node and all(_outer_cat(p.node, axes) is None for p in outer.parts)):
        return node
    parts = [Part(p.positions, p.axes, hoist(w, part_of(w, node, outer.axis, p), axes)) for p in outer.parts]
    return Cat(outer.axis, tuple(parts))


def _outer_cat(node: Node, axes: Collection[Axis]) -> Cat | None:
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


def within(w: Workspace, node: Node, axes: Collection[Axis], law: Callable[[Node], Node]) -> Node:
    """Applies `law` to the sub-nodes in which only `axes` are concatenated: softmax and norms work on those."""

    def apply(inner: Node) -> Node:
        if isinstance(inner, Cat) and inner.axis not in axes:
            return Cat(inner.axis, tuple(Part(p.positions, p.axes, apply(p.node)) for p in inner.parts))
        return law(inner)

    return apply(hoist(w, node, axes))
