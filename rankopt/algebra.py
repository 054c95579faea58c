"""The algebra of deferred nodes: sums, products with contraction, reductions, elementwise functions.

Every law here is one of three kinds of distribution:

    over Cat        f(cat(a, b)) = cat(f(a), f(b));  a contracted Cat becomes a sum of products
    over Sum        (a + b) c = a c + b c, kept pending
    by evaluation   what does not distribute is forced first

All functions take nodes whose axes have already been unified: an axis means the same thing in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from rankopt import operands as ops
from rankopt.axes import Axis
from rankopt.evaluate import force
from rankopt.expressions import Expr
from rankopt.factors import products
from rankopt.nesting import coalesce, part_of
from rankopt.settling import settle, worth_evaluating
from rankopt.shared import product
from rankopt.structure import concatenate
from rankopt.values import Cat, Node, Part, Sum, Term, leaf
from rankopt.workspace import Workspace


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
        return Sum((product(w, _factored(w, x), _factored(w, y), frozenset()),), value)
    return settle(w, products(w, x, y, summed))


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
    return len(operands) == 2 and worth_evaluating(w, Term(tuple(operands)))


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
