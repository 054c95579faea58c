"""What was not improved: the nodes at which context and target can be told apart no longer.

A value is *open* while something of the context stands by itself in it: it is rank-2 or mixed, or it is a
sum or a product, still pending, with a context operand. Laws can use that. The first node that reads an
open value and returns one that is not is where sharing ends; everything behind it runs per candidate, and
is charged to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx

from rankopt.capture import CapturedModel
from rankopt.expressions import Stage
from rankopt.interpreter import Decision
from rankopt.plan import Plan
from rankopt.selectors import InputRole, Role
from rankopt.values import Value, leaves

_SIDE_BY_SIDE = "needs context and target in one tensor"
_ADDED_UP = "adds up context and target parts"
_WORDS = {
    "data_movement": _SIDE_BY_SIDE,
    "gather": _SIDE_BY_SIDE,
    "concatenation": _SIDE_BY_SIDE,
    "linear": _ADDED_UP,
    "bilinear": _ADDED_UP,
    "reductions": _ADDED_UP,
}
"""What a rule did, by its family, if it returned a value that is no longer open."""


@dataclass(slots=True)
class Refused:
    """A node at which sharing ends, why, and the nodes behind it."""

    node: fx.Node
    reason: str
    was_split: bool
    """Whether its own work was improved: it evaluates a sum of context and target parts."""
    behind: list[fx.Node] = field(default_factory=list[fx.Node])


def dependencies(captured: CapturedModel, plan: Plan) -> dict[fx.Node, frozenset[str]]:
    """The inputs of the model from which every node is computed. Mere sizes do not count.

    What `plan` has found out narrows them: the last column of a concatenation reads only what was put there.
    """
    labels = plan.interpretation.labels
    names = {item.placeholder: item.name for item in captured.inputs}
    found: dict[fx.Node, frozenset[str]] = {}
    for node in captured.graph_module.graph.nodes:
        if node.op == "placeholder":
            found[node] = frozenset([names[node.name]]) if node.name in names else frozenset()
        elif is_tensor(node) or node.op == "output":
            found[node] = frozenset[str]().union(*(found[above] for above in node.all_input_nodes))
            if node.name in labels:
                found[node] &= frozenset(labels[node.name].inputs)
        else:
            found[node] = frozenset()
    return found


def is_tensor(node: fx.Node) -> bool:
    """Whether a node is a tensor, or several, and not a size."""
    meta = node.meta.get("val")
    return hasattr(meta, "shape") or isinstance(meta, tuple | list)


def refused(captured: CapturedModel, roles: Sequence[InputRole], plan: Plan, limit: Plan, pays: str) -> list[Refused]:
    """Where sharing ends in `plan`, in the order of the graph.

    Where it goes on in `limit`, a law holds, and `plan` has put context and target together because that is estimated
    to be cheaper; `pays` says from how many candidates on it is not.
    """
    decisions = {decision.node: decision for decision in plan.interpretation.decisions}
    context = {role.name for role in roles if role.role is not Role.TARGET}
    depends = dependencies(captured, plan)
    opened: dict[fx.Node, bool] = {}
    ended: dict[fx.Node, int] = {}
    found: list[Refused] = []
    for node in captured.graph_module.graph.nodes:
        opened[node] = _is_open(node, plan.interpretation.values)
        if node.op != "call_function" or opened[node] or not depends[node] & context:
            continue
        above = [n for n in node.all_input_nodes if depends[n] & context]
        if any(opened[n] for n in above):
            ended[node] = len(found)
            by_choice = _is_open(node, limit.interpretation.values)
            found.append(_refused(node, decisions.get(node.name), pays if by_choice else ""))
            continue
        # Of several, the one that comes last: as long as it stands, the others do not matter.
        ends = [ended[n] for n in above if n in ended]
        if ends:
            ended[node] = max(ends)
            found[ended[node]].behind.append(node)
    return found


def _is_open(node: fx.Node, values: Mapping[str, Value]) -> bool:
    """Whether something of the context stands by itself in the value of a node, or in one of its results."""
    if node.name not in values:
        return any(user.name in values and _is_open(user, values) for user in node.users if _takes_item(user))
    return any(
        operand.tensor.stage is Stage.CONTEXT
        for leaf in leaves(values[node.name].node)
        for term in leaf.terms
        for operand in term.operands
    )


def _takes_item(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def _refused(node: fx.Node, decision: Decision | None, pays: str) -> Refused:
    if pays:
        return Refused(node, f"{node.name} puts context and target together; to keep them apart {pays}", was_split=True)
    if decision is not None and decision.refusal:
        return Refused(node, decision.refusal, was_split=False)
    family = decision.rule.split(".")[0] if decision is not None else ""
    words = _WORDS.get(family, "mixes context and target")
    return Refused(node, f"{node.name} {words}", was_split=words == _ADDED_UP)
