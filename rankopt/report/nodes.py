"""The facts about single nodes: what became of each, and why some of it stays per candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import fx

from rankopt.capture import CapturedModel
from rankopt.exporting import RowFunction
from rankopt.interpreter import Decision
from rankopt.labels import Label, Rank
from rankopt.plan import Plan
from rankopt.report.accounting import NOTHING, Work
from rankopt.report.lines import user_line
from rankopt.report.mixing import Refused, dependencies, is_tensor
from rankopt.report.tree import DeclinedFacts, NodeFacts
from rankopt.report.words import pays

SPLIT = "split: what is left of it needs target values"


def nodes_of(
    captured: CapturedModel, plan: Plan, looked: Plan, work: Work, whys: Mapping[str, str], context: frozenset[str]
) -> tuple[NodeFacts, ...]:
    """The inputs, every tensor computed from them, and the output.

    Parameters, and what depends on them alone, are no part of a request. `looked` is the plan whose interpretation
    tells what is known of the nodes; `whys` are the reasons that are known for staying per candidate.
    """
    weights = {weight.placeholder for weight in captured.weights}
    depends = dependencies(captured, looked)
    decisions = {decision.node: decision for decision in plan.interpretation.decisions}
    if plan.policy.unchanged:
        left = "the model is left unchanged"
        decisions = {name: replace(d, rule="", refusal=left) for name, d in decisions.items()}
    found: list[NodeFacts] = []
    for node in captured.graph_module.graph.nodes:
        if node.op == "output" and not any(node.name in side for side in (work.before, work.emitted)):
            continue
        if node.name in weights or (node.op != "output" and not is_tensor(node)):
            continue
        label = _label(node, looked, depends[node])
        if label.rank is Rank.PARAMETER:
            continue
        # A plan that rewrites little may run per candidate what `looked` knows to be rank-2.
        stays = node.op == "call_function" and _label(node, plan, depends[node]).rank is not Rank.RANK2
        why = whys.get(node.name, _unnamed(plan)) if stays and depends[node] & context else ""
        found.append(_node(node, label, decisions.get(node.name), work, why))
    return tuple(found)


def reasons(declined: Sequence[DeclinedFacts], ends: Sequence[Refused]) -> dict[str, str]:
    """Why nodes stay per candidate, by their names: where sharing ends and behind that; or because it does not pay."""
    found: dict[str, str] = {}
    for end in ends:
        found[end.node.name] = end.reason
        found.update((node.name, f"behind {end.node.name}: {end.reason}") for node in end.behind)
    for facts in declined:
        found.update(dict.fromkeys(facts.nodes, f"{facts.reason}; {pays(facts.break_even)}"))
    return found


def op_of(node: fx.Node) -> str:
    """What a call calls, in words: `aten.linear.default`."""
    text = str(node.target)
    return text if text.startswith("aten.") else str(getattr(node.target, "__name__", text))


def _unnamed(plan: Plan) -> str:
    """The reason of a node at which nothing ends: laws hold, so it is split, unless the plan applies none."""
    return SPLIT if plan.policy.rewrites else f"not split: '{plan.policy.name}' is the cheapest plan by estimate"


def _node(node: fx.Node, label: Label, decision: Decision | None, work: Work, why: str) -> NodeFacts:
    is_call = node.op == "call_function"
    return NodeFacts(
        name=label.inputs[0] if node.op == "placeholder" else node.name,
        op=op_of(node) if is_call else "input" if node.op == "placeholder" else "output",
        rank=label.rank,
        shared=label.shared,
        inputs=label.inputs,
        line=user_line(node),
        before=work.before.get(node.name, NOTHING),
        after=work.emitted.get(node.name, NOTHING),
        done_in=work.done_in.get(node.name, ()),
        rule=decision.rule if decision is not None else "",
        refusal=decision.refusal if decision is not None else "",
        module=_module(node),
        share=work.owned.get(node.name, NOTHING),
        why=why,
    )


def _module(node: fx.Node) -> str:
    """The path of the innermost module of the user's in which a node was traced."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return ""
    path = str(stack[-1][0])
    wrapped = str(stack[0][1]).rpartition(".")[2] == RowFunction.__name__
    return path.removeprefix("model").removeprefix(".") if wrapped else path


def _label(node: fx.Node, looked: Plan, depends: frozenset[str]) -> Label:
    """The label of a node. One that has several results, or that is the output, has those of its parts.

    An op on tiled rows reads a target input for its number of rows alone: such inputs are left out.
    """
    labels = looked.interpretation.labels
    if node.name in labels:
        known = labels[node.name]
        return Label(known.rank, known.shared, tuple(name for name in known.inputs if name in depends))
    refusal = any(d.node == node.name and d.refusal for d in looked.interpretation.decisions)
    around = node.all_input_nodes if node.op == "output" else node.users
    parts = [labels[other.name] for other in around if other.name in labels]
    inputs = tuple(sorted(depends))
    if refusal or not parts:
        return Label(Rank.OPAQUE, 0.0, inputs)
    ranks = {part.rank for part in parts}
    shared = sum(part.shared for part in parts) / len(parts)
    return Label(ranks.pop() if len(ranks) == 1 else Rank.MIXED, shared, inputs)
