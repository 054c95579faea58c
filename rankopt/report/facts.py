"""The facts of a report: what was saved, what was not, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import fx

from rankopt.capture import CapturedModel
from rankopt.cost import Flops
from rankopt.envelope import Piece, break_even
from rankopt.interpreter import Decision
from rankopt.labels import Label, Rank
from rankopt.passes import NAMES
from rankopt.plan import Plan
from rankopt.report import words
from rankopt.report.accounting import NOTHING, Work, account, has_gram_matrix
from rankopt.report.lines import user_line
from rankopt.report.mixing import Refused, dependencies, is_tensor, refused
from rankopt.report.tree import (
    FamilyFacts,
    Figure,
    NodeFacts,
    PolicyFacts,
    RangeFacts,
    RefusalFacts,
    Report,
    RoundingFacts,
    StateTensor,
    VerificationFacts,
)
from rankopt.selectors import InputRole
from rankopt.stages import Stages
from rankopt.timing import total_time
from rankopt.verification import Verification

__all__ = ["Report", "build_report"]

OTHER = "left as it is"
"""The row, among the families, of nodes that no rule handled."""


def build_report(
    captured: CapturedModel,
    roles: Sequence[InputRole],
    pieces: Sequence[Piece],
    plans: Sequence[Plan],
    dropped: Sequence[Plan],
    unshared: Plan,
    stages: Stages,
    verification: Verification | None,
) -> Report:
    """The facts about the last of `pieces`, which were chosen of `plans`, and how the others share the range.

    Args:
        captured: the model.
        roles: of its inputs, in their order.
        pieces: the programs that are served, and the numbers of candidates of each.
        plans: all that were tried, the cheapest first; the unchanged one is among them.
        dropped: those of which the scores differed.
        unshared: the rewriting without any sharing.
        stages: of the last of `pieces`.
        verification: the comparison with the original, if there was one.
    """
    plan = pieces[-1].plan
    before = next(tried for tried in plans if tried.policy.unchanged)
    # A plan that rewrites nothing looks into nothing: what the best rewriting found out is what is known of the nodes.
    looked = plan if plan.policy.rewrites else next(tried for tried in plans if tried.policy.rewrites)
    work = account(captured.graph_module.graph, before.exprs, plan.exprs, plan.candidates)
    nodes = _nodes(captured, plan, looked, work)
    return Report(
        candidates=plan.candidates,
        policy=plan.policy.name,
        unchanged=_why_unchanged(plan, plans, dropped),
        before=_figure(before),
        unshared=_figure(unshared),
        after=_figure(plan),
        state=state_facts(stages),
        policies=_policies(plans, pieces, dropped),
        ranges=tuple(_range(piece, before) for piece in pieces),
        break_even=None if plan.policy.unchanged else break_even(plan, before),
        nodes=nodes,
        families=_families(nodes, work),
        refusals=_refusals(captured, roles, looked, work),
        verification=None if verification is None else _verification(verification, plan),
        notes=("Gram matrices counted as computed",) if has_gram_matrix(before.exprs) else (),
    )


def state_facts(stages: Stages) -> tuple[StateTensor, ...]:
    """The tensors of the state."""
    return tuple(
        StateTensor(tensor.name, tensor.shape, str(tensor.dtype).removeprefix("torch."), tensor.bytes)
        for tensor in stages.state
    )


def with_rounding(report: Report, stages: Stages, state_dtype: torch.dtype, verification: Verification) -> Report:
    """The report of an exact ranker as that of the same with a rounded state. `verification`: of the latter."""
    agreement = verification.agreement
    rounding = RoundingFacts(
        dtype=str(state_dtype).removeprefix("torch."),
        exact_bytes=report.state_bytes,
        candidates=verification.candidates,
        error=agreement.rewritten_error,
        absolute_error=agreement.absolute_error,
        original_error=agreement.original_error,
        top100=agreement.order.top100,
        moved100=agreement.order.moved100,
        kendall_tau=agreement.order.kendall_tau,
    )
    return replace(report, state=state_facts(stages), rounding=rounding)


def _figure(plan: Plan) -> Figure:
    return Figure(plan.flops, plan.time)


def _policies(plans: Sequence[Plan], pieces: Sequence[Piece], dropped: Sequence[Plan]) -> tuple[PolicyFacts, ...]:
    return tuple(
        PolicyFacts(
            tried.policy.name,
            _figure(tried),
            chosen=any(tried is piece.plan for piece in pieces),
            dropped=any(tried is other for other in dropped),
        )
        for tried in plans
    )


def _range(piece: Piece, before: Plan) -> RangeFacts:
    ends = tuple(
        (
            total_time(before.exprs, n, before.workspace.profile),
            total_time(piece.plan.exprs, n, before.workspace.profile),
        )
        for n in (piece.first, piece.last)
    )
    (before_first, first), (before_last, last) = ends
    return RangeFacts(piece.first, piece.last, piece.plan.policy.name, (before_first, before_last), (first, last))


def _why_unchanged(plan: Plan, plans: Sequence[Plan], dropped: Sequence[Plan]) -> str:
    if not plan.policy.unchanged:
        return ""
    best = next(tried for tried in plans if tried.policy.rewrites)
    if dropped:
        return "the rewritten programs did not give the scores of the model"
    old, new = (words.joined(tried.flops).at(plan.candidates) for tried in (plan, best))
    if new >= old:
        return "no law saves any work in it"
    return (
        f"the best rewriting saves {(old - new) / old:.0%} of the work, but is estimated to take longer "
        f"({words.duration(best.time)} instead of {words.duration(plan.time)})"
    )


# ------------------------------------------------------------------------------------------------------ nodes


def _nodes(captured: CapturedModel, plan: Plan, looked: Plan, work: Work) -> tuple[NodeFacts, ...]:
    """The inputs, every tensor computed from them, and the output.

    Parameters, and what depends on them alone, are no part of a request.
    """
    weights = {weight.placeholder for weight in captured.weights}
    depends = dependencies(captured)
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
        found.append(_node(node, label, decisions.get(node.name), work))
    return tuple(found)


def _node(node: fx.Node, label: Label, decision: Decision | None, work: Work) -> NodeFacts:
    is_call = node.op == "call_function"
    return NodeFacts(
        name=label.inputs[0] if node.op == "placeholder" else node.name,
        op=_op(node) if is_call else "input" if node.op == "placeholder" else "output",
        rank=label.rank,
        shared=label.shared,
        inputs=label.inputs,
        line=user_line(node),
        before=work.before.get(node.name, NOTHING),
        after=work.emitted.get(node.name, NOTHING),
        done_in=work.done_in.get(node.name, ()),
        rule=decision.rule if decision is not None else "",
        refusal=decision.refusal if decision is not None else "",
    )


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


def _op(node: fx.Node) -> str:
    text = str(node.target)
    return text if text.startswith("aten.") else str(getattr(node.target, "__name__", text))


def _families(nodes: Sequence[NodeFacts], work: Work) -> tuple[FamilyFacts, ...]:
    names = {node.name: _family(node) for node in nodes}
    counted: dict[str, list[str]] = {}
    for name, family in names.items():
        counted.setdefault(family, []).append(name)
    order = (*NAMES, *(name for name in counted if name not in NAMES and name != OTHER), OTHER)
    found = (
        FamilyFacts(name, len(counted[name]), _sum(work.before, counted[name]), _sum(work.owned, counted[name]))
        for name in order
        if name in counted
    )
    return tuple(family for family in found if family.name in NAMES or _is_work(family))


def _is_work(family: FamilyFacts) -> bool:
    return family.before != NOTHING or family.after != NOTHING


def _family(node: NodeFacts) -> str:
    if node.op in ("input", "output"):
        return node.op
    return node.rule.split(".")[0] if node.rule else OTHER


def _sum(work: Mapping[str, Flops], names: Sequence[str]) -> Flops:
    return sum((work.get(name, NOTHING) for name in names), NOTHING)


# --------------------------------------------------------------------------------------------------- the rest


def _refusals(
    captured: CapturedModel, roles: Sequence[InputRole], looked: Plan, work: Work
) -> tuple[RefusalFacts, ...]:
    found = [_refusal(end, work) for end in refused(captured, roles, looked)]
    kept = [(f.after.at(looked.candidates), f.after.elementwise_at(looked.candidates), f) for f in found]
    return tuple(f for products, rest, f in sorted(kept, key=lambda k: (-k[0], -k[1])) if products or rest)


def _refusal(end: Refused, work: Work) -> RefusalFacts:
    behind = tuple(node.name for node in end.behind)
    return RefusalFacts(
        node=end.node.name,
        op=_op(end.node),
        reason=end.reason,
        line=user_line(end.node),
        after=_sum(work.owned, behind if end.was_split else (end.node.name, *behind)),
        nodes=behind,
    )


def _verification(verification: Verification, plan: Plan) -> VerificationFacts:
    agreement = verification.agreement
    order = agreement.order
    dtypes = [str(output.dtype).removeprefix("torch.") for output in plan.outputs]
    return VerificationFacts(
        identical=verification.identical,
        dtype=dtypes[0] if len(set(dtypes)) == 1 else "as served",
        candidates=verification.candidates,
        error64=agreement.error64,
        original_error=agreement.original_error,
        rewritten_error=agreement.rewritten_error,
        ratio=agreement.ratio if math.isfinite(agreement.ratio) else None,
        top10=order.top10,
        top100=order.top100,
        kendall_tau=order.kendall_tau,
        swapped_pairs=order.swapped_pairs,
        nan_mismatches=agreement.nan_mismatches,
        infinity_mismatches=agreement.infinity_mismatches,
    )
