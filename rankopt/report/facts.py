"""The facts of a report: what was saved, what was not, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from rankopt.capture import CapturedModel
from rankopt.cost import Flops
from rankopt.envelope import Piece, break_even
from rankopt.passes import NAMES
from rankopt.plan import Plan, References
from rankopt.report import words
from rankopt.report.accounting import NOTHING, Work, account, has_gram_matrix
from rankopt.report.declined import Alternative, Declined, alternative, declined
from rankopt.report.lines import user_line
from rankopt.report.mixing import Refused, refused
from rankopt.report.nodes import nodes_of, op_of, reasons
from rankopt.report.tree import (
    DeclinedFacts,
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
from rankopt.selectors import InputRole, Role
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
    others: References,
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
        others: the rewriting without any sharing, and that for very many candidates.
        stages: of the last of `pieces`.
        verification: the comparison with the original, if there was one.
    """
    plan = pieces[-1].plan
    before = next(tried for tried in plans if tried.policy.unchanged)
    # A plan that rewrites nothing looks into nothing: what the best rewriting found out is what is known of the nodes.
    looked = plan if plan.policy.rewrites else next(tried for tried in plans if tried.policy.rewrites)
    graph = captured.graph_module.graph
    work = account(graph, before.exprs, plan.exprs, plan.candidates)
    tried = [other for other in (*plans, others.limit) if not any(other is gone for gone in dropped)]
    better = None if dropped and plan.policy.unchanged else alternative(plan, tried)
    saving = _declined(captured, plan, before, work, better)
    ends = refused(captured, roles, looked, others.limit, words.pays(break_even(others.limit, plan)))
    context = frozenset(role.name for role in roles if role.role is not Role.TARGET)
    nodes = nodes_of(captured, plan, looked, work, reasons(saving, ends), context)
    return Report(
        candidates=plan.candidates,
        policy=plan.policy.name,
        unchanged=_why_unchanged(plan, plans, dropped, better),
        before=_figure(before),
        unshared=_figure(others.unshared),
        after=_figure(plan),
        state=state_facts(stages),
        policies=_policies(plans, pieces, dropped),
        ranges=tuple(_range(piece, before) for piece in pieces),
        break_even=None if plan.policy.unchanged else break_even(plan, before),
        nodes=nodes,
        families=_families(nodes, work),
        refusals=_refusals(ends, looked.candidates, work),
        verification=None if verification is None else _verification(verification, plan),
        notes=("Gram matrices counted as computed",) if has_gram_matrix(before.exprs) else (),
        declined=saving,
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


def _why_unchanged(plan: Plan, plans: Sequence[Plan], dropped: Sequence[Plan], better: Alternative | None) -> str:
    if not plan.policy.unchanged:
        return ""
    best = next(tried for tried in plans if tried.policy.rewrites)
    if dropped:
        return "the rewritten programs did not give the scores of the model"
    old, new = (words.joined(tried.flops).at(plan.candidates) for tried in (plan, best))
    pays = "" if better is None or better.break_even is None else f", and {words.pays(better.break_even)}"
    if new >= old:
        return f"no law saves any work in it at this number{pays}" if pays else "no law saves any work in it"
    return (
        f"the best rewriting saves {(old - new) / old:.0%} of the work, but is estimated to take longer "
        f"({words.duration(best.time)} instead of {words.duration(plan.time)}){pays}"
    )


# --------------------------------------------------------------------------------------------------- families


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


def _refusals(ends: Sequence[Refused], candidates: int, work: Work) -> tuple[RefusalFacts, ...]:
    found = [_refusal(end, work) for end in ends]
    kept = [(f.after.at(candidates), f.after.elementwise_at(candidates), f) for f in found]
    return tuple(f for products, rest, f in sorted(kept, key=lambda k: (-k[0], -k[1])) if products or rest)


def _refusal(end: Refused, work: Work) -> RefusalFacts:
    behind = tuple(node.name for node in end.behind)
    return RefusalFacts(
        node=end.node.name,
        op=op_of(end.node),
        reason=end.reason,
        line=user_line(end.node),
        after=_sum(work.owned, behind if end.was_split else (end.node.name, *behind)),
        nodes=behind,
    )


def _declined(
    captured: CapturedModel, plan: Plan, before: Plan, work: Work, better: Alternative | None
) -> tuple[DeclinedFacts, ...]:
    if better is None:
        return ()
    graph = captured.graph_module.graph
    possible = account(graph, before.exprs, better.plan.exprs, plan.candidates)
    return tuple(_facts(item, better) for item in declined(graph, plan, work, better, possible))


def _facts(item: Declined, better: Alternative) -> DeclinedFacts:
    return DeclinedFacts(
        node=item.node.name,
        nodes=tuple(node.name for node in item.nodes),
        reason=item.reason,
        line=user_line(item.node),
        now=item.now,
        possible=item.possible,
        policy=better.plan.policy.name,
        break_even=better.break_even,
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
