"""Whose work is what: FLOPs per node of the captured graph, before and after.

Every expression of a plan knows the node of the captured graph during which it was built. For the unchanged
plan that is the node itself. A rewritten plan leaves products pending, so a node's work may be built while
a later one is interpreted: a linear layer in front of a relu is computed "in relu", and the last layer in
"output". What was built where is exact and adds up to the totals; whose work it was is inferred from the
graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from rankopt import cost
from rankopt.cost import Flops
from rankopt.expressions import Expr, Stage, operands
from rankopt.program import aten

NOTHING = Flops()


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs by node of the captured graph."""

    before: Mapping[str, Flops]
    emitted: Mapping[str, Flops]
    """Of the plan, where it was built."""
    owned: Mapping[str, Flops]
    """Of the plan, where it belongs: matrix products go back to the nodes that they are the work of."""
    done_in: Mapping[str, tuple[str, ...]]
    """The later nodes in which a node's work was built."""


def account(graph: fx.Graph, before: Sequence[Expr], after: Sequence[Expr], candidates: int) -> Work:
    """The work of two programs, `before` unchanged, by the nodes of the captured graph."""
    old, emitted = by_node(before), by_node(after)
    owned = {name: Flops(0.0, 0.0, work.elementwise_once, work.elementwise_each) for name, work in emitted.items()}
    done_in: dict[str, list[str]] = {}
    for node in graph.nodes:
        work = _products(emitted.get(node.name, NOTHING))
        if not work.at(candidates):
            continue
        owners = _owners(node, old, emitted, candidates)
        whole = sum(weight for _, weight in owners)
        for owner, weight in owners:
            owned[owner] = owned.get(owner, NOTHING) + _scaled(work, weight / whole)
            if owner != node.name:
                done_in.setdefault(owner, []).append(node.name)
    return Work(old, emitted, owned, {name: tuple(nodes) for name, nodes in done_in.items()})


def by_node(exprs: Sequence[Expr]) -> dict[str, Flops]:
    """FLOPs per request by the node during which they were built. They add up to those of the program."""
    groups: dict[str, list[Expr]] = {}
    for expr in exprs:
        if expr.stage is not Stage.WEIGHT:
            groups.setdefault(expr.origin.node, []).append(expr)
    return {name: cost.flops(group) for name, group in groups.items()}


def has_gram_matrix(exprs: Sequence[Expr]) -> bool:
    """Whether a product multiplies a tensor with itself, half of whose result is the other half again."""
    products = (aten.matmul.default, aten.bmm.default, aten.mm.default)
    pairs = (list(operands(expr.args)) for expr in exprs if expr.target in products)
    return any(_source(pair[0]) is _source(pair[1]) for pair in pairs)


def _owners(
    node: fx.Node, before: Mapping[str, Flops], emitted: Mapping[str, Flops], candidates: int
) -> list[tuple[str, float]]:
    """The nodes whose products were built at `node`, with their FLOPs before.

    These are the node itself, and those above it that were left pending. Where there are none, the nearest
    ones above it left a part of theirs.
    """

    def flops(work: Mapping[str, Flops], name: str) -> float:
        return work.get(name, NOTHING).at(candidates)

    above = list(_above(node, until=lambda other: flops(emitted, other.name) > 0))
    names = [other.name for other in above if not flops(emitted, other.name)]
    found = [name for name in (node.name, *names) if flops(before, name)]
    if not found:
        found = [other.name for other in above if flops(before, other.name)]
    return [(name, flops(before, name)) for name in found] or [(node.name, 1.0)]


def _above(node: fx.Node, until: Callable[[fx.Node], bool]) -> Iterator[fx.Node]:
    """What `node` reads, directly or not, each once; nothing above those where `until` holds."""
    seen: set[fx.Node] = set()
    waiting = deque(node.all_input_nodes)
    while waiting:
        other = waiting.popleft()
        if other in seen:
            continue
        seen.add(other)
        yield other
        if not until(other):
            waiting.extend(other.all_input_nodes)


_VIEWS = cost.FREE | {
    aten.transpose.int,
    aten.view.default,
    aten.t.default,
    aten.flatten.using_ints,
    aten.alias.default,
}


def _source(expr: Expr) -> Expr:
    while expr.target in _VIEWS:
        expr = next(operands(expr.args))
    return expr


def _products(flops: Flops) -> Flops:
    return Flops(flops.once, flops.each)


def _scaled(flops: Flops, factor: float) -> Flops:
    return Flops(flops.once * factor, flops.each * factor)
