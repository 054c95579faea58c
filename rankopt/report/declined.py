"""What could be done once per request, and is not: laws that hold, and were estimated not to pay.

The plan that is served is compared with one that leaves less work per candidate. Both are exact about what is built
where, but a product may be built at different nodes by the two; so nodes are compared in groups, as small as possible,
within which the work of either plan stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import networkx
from torch import fx

from rankopt.cost import Flops
from rankopt.envelope import break_even, doubt
from rankopt.plan import Plan
from rankopt.report import words
from rankopt.report.accounting import NOTHING, Work
from rankopt.timing import total_time

LESS = 0.99
"""A plan that leaves more than this fraction of the work per candidate is not said to do it better."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A plan that leaves less work per candidate than the one that is served, and why it is not served."""

    plan: Plan
    time: float
    """Estimated nanoseconds, at the number of candidates of the plan that is served."""
    break_even: int | None
    """The number of candidates from which on it is estimated to be faster; None if there is none."""


@dataclass(frozen=True, slots=True)
class Declined:
    """Nodes whose work per candidate an alternative would lower: their work as served, and in the alternative."""

    node: fx.Node
    """Of `nodes`, the one that costs most in the model."""
    nodes: tuple[fx.Node, ...]
    now: Flops
    possible: Flops
    reason: str


def alternative(plan: Plan, tried: Sequence[Plan]) -> Alternative | None:
    """Of the plans that are not served, the one to compare with; None if all leave as much work per candidate.

    For a plan that rewrites, it is that with the least work per candidate. For one that does not, it is the first
    rewriting to pay as the number of candidates grows, and of those that never pay the cheapest.
    """
    others = [other for other in tried if other.policy.rewrites and other.flops.each < LESS * plan.flops.each]
    priced = [(other, total_time(other.exprs, plan.candidates, plan.workspace.profile)) for other in others]
    priced = [(other, time) for other, time in priced if time * doubt(other, plan.candidates) >= plan.time]
    if not priced:
        return None
    if plan.policy.rewrites:
        other, time = min(priced, key=lambda pair: (pair[0].flops.each, pair[1]))
        return Alternative(other, time, break_even(other, plan))
    found = [Alternative(other, time, break_even(other, plan)) for other, time in priced]
    return min(found, key=lambda a: (math.inf if a.break_even is None else a.break_even, a.time))


def declined(graph: fx.Graph, plan: Plan, work: Work, other: Alternative, possible: Work) -> list[Declined]:
    """What `other` does in less work per candidate than `plan`, what saves most first."""
    nodes = {node.name: node for node in graph.nodes}
    found: list[Declined] = []
    for names in _groups(work, possible, list(nodes)):
        now, then = (sum((w.emitted.get(name, NOTHING) for name in names), NOTHING) for w in (work, possible))
        if then.each < LESS * now.each:
            costly = tuple(nodes[name] for name in names if work.before.get(name, NOTHING).each)
            main = max(costly, key=lambda node: work.before[node.name].each, default=nodes[names[0]])
            found.append(Declined(main, costly or (main,), now, then, _reason(plan, other, now, then)))
    return sorted(found, key=lambda item: item.possible.each - item.now.each)


def _groups(work: Work, possible: Work, names: Sequence[str]) -> list[list[str]]:
    """The smallest groups of nodes that no work leaves, in either plan; nodes in the order of the graph."""
    joined: networkx.Graph[str] = networkx.Graph()
    joined.add_nodes_from(names)
    for done_in in (work.done_in, possible.done_in):
        joined.add_edges_from((owner, place) for owner, places in done_in.items() for place in places)
    order = {name: i for i, name in enumerate(names)}
    return [sorted(group, key=order.__getitem__) for group in networkx.connected_components(joined)]


def _reason(plan: Plan, other: Alternative, now: Flops, then: Flops) -> str:
    n = plan.candidates
    old, new = now.at(n), then.at(n)
    found = f"{words.flop(new)} instead of {words.flop(old)} per request"
    if new >= old:
        equal = math.ceil((then.once - now.once) / (now.each - then.each))
        return f"sharing it costs more than it saves at {n:,} candidates: {found} (equal at {equal:,})"
    times = f"{words.duration(other.time)}, this one at {words.duration(plan.time)}"
    return f"sharing it takes {found}, but the plan that does ({other.plan.policy.name}) is estimated at {times}"
