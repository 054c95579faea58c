"""Case tables: a law per line, checked without leaving it.

    Case("elementwise.relu", lambda c, t: relu(c) * t, once="relu")              it fires; relu runs once per request
    Case("gather.select", lambda c, t: (c + t)[0], refuses="a row is selected")  it refuses, and says why

Cases of the same inputs are captured as one module with many outputs, and interpreted once per policy. Each must equal
the model in float64, for no, one and several candidates, under every policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from rankopt.capture import CapturedModel, capture
from rankopt.expressions import Expr, Leaf, Stage, reachable
from rankopt.float64 import run_float64
from rankopt.pipeline import build
from rankopt.plan import FULL, POLICIES, Plan, interpret
from rankopt.ranker import Ranker
from rankopt.requests import Request, tile
from rankopt.rules import RULES
from rankopt.selectors import InputRole, Role
from rankopt.verify import placeholders
from rankopt.workspace import Policy

aten = torch.ops.aten

ROW_COUNTS = (0, 1, 2, 17)
PRODUCTS = (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.matmul.default)


@dataclass(frozen=True, slots=True)
class Like:
    """An example input [R, *shape]: normal numbers, or ids below `high`, of a type."""

    shape: tuple[int, ...]
    high: int | None = None
    dtype: torch.dtype | None = None

    def rows(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if self.high is not None:
            return torch.randint(0, self.high, (count, *self.shape), generator=generator).to(self.dtype or torch.int64)
        return torch.randn(count, *self.shape, generator=generator).to(self.dtype or torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One function of a context input `c` and a target input `t`, and what should become of it."""

    rule: str
    """The rule, `family.name`, that the case is about."""
    function: Callable[..., Any]
    c: Like = Like((3, 4))
    t: Like = Like((2, 4))
    refuses: str = ""
    """Part of the reason for which the rule refuses; empty if it fires."""
    once: str = ""
    """An op that must run once per request, in the context stage."""
    never: str = ""
    """An op that must not be left in the emitted program."""
    exact: bool = False
    """Only data moves: equal to the last bit."""
    from_rows: int = 0
    """The smallest number of candidates for which the function is defined."""
    given: Mapping[str, Tensor | nn.Module] = field(default_factory=dict)
    """Weights and layers, passed to the function by name."""

    def __str__(self) -> str:
        return f"{self.rule}{' refuses' if self.refuses else ''}"


class Cases(nn.Module):
    """All cases of one signature as one model."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.cases = cases
        for i, case in enumerate(cases):
            for name, value in case.given.items():
                if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                    self.register_buffer(f"{name}_{i}", value)
                else:
                    setattr(self, f"{name}_{i}", value)

    def forward(self, c: Tensor, t: Tensor) -> list[Any]:
        return [
            case.function(c, t, **{name: getattr(self, f"{name}_{i}") for name in case.given})
            for i, case in enumerate(self.cases)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The captured cases of one signature, and the plans and rankers of every policy."""

    cases: tuple[Case, ...]
    captured: CapturedModel
    plans: dict[str, Plan]
    rankers: dict[str, Ranker]

    def request(self, rows: int) -> Request:
        case = self.cases[0]
        return Request({"c": case.c.rows(1, 1)}, {"t": case.t.rows(rows, 2)})


ROLES = (InputRole("c", Role.CONTEXT), InputRole("t", Role.TARGET))


@cache
def group_of(cases: tuple[Case, ...]) -> Group:
    """Captures and rewrites cases that have the same inputs."""
    case = cases[0]
    model = Cases(cases).eval()
    captured = capture(model, (case.c.rows(5, 3), case.t.rows(5, 4)))
    plans = {policy.name: interpret(captured, ROLES, 64, policy) for policy in POLICIES}
    rankers = {name: build(captured, ROLES, plan) for name, plan in plans.items()}
    group = Group(cases, captured, plans, rankers)
    check_graphs(group)
    return group


def law_tests(cases: Sequence[Case]) -> Callable[..., None]:
    """The test of a case table."""
    signatures: dict[Any, list[Case]] = {}
    for case in cases:
        signatures.setdefault((case.c, case.t, case.from_rows), []).append(case)
    group = {id(case): tuple(same) for same in signatures.values() for case in same}

    @pytest.mark.parametrize("case", cases, ids=str)
    def test_case(case: Case) -> None:
        found = group_of(group[id(case)])
        check_decision(case, found)
        check_stages(case, found)
        for rows in ROW_COUNTS:
            if rows >= case.from_rows:
                check_numbers(case, found, rows)

    return test_case


# ------------------------------------------------------------------------------------------------------ what happened


def nodes_of(graph: fx.Graph, output: int) -> set[fx.Node]:
    """The nodes that one output of the captured graph needs."""
    seen: set[fx.Node] = set()
    stack: list[fx.Node] = [graph.output_node().args[0][output]]  # type: ignore[index,list-item]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.all_input_nodes)
    return seen


def check_decision(case: Case, group: Group) -> None:
    """The rule fired for a node of the case, or refused with the reason given."""
    names = {node.name: node for node in nodes_of(group.captured.graph_module.graph, group.cases.index(case))}
    decisions = [d for d in group.plans[FULL.name].interpretation.decisions if d.node in names]
    listed = "\n".join(f"{d.node}: {d.rule or d.refusal}" for d in decisions)
    if not case.refuses:
        assert case.rule in [d.rule for d in decisions], listed
        return
    refused = [d for d in decisions if d.refusal and case.rule in ("", _rule_name(names[d.node].target))]
    assert any(case.refuses in d.refusal for d in refused), listed


def _rule_name(target: Any) -> str:
    return RULES[target].name if target in RULES else ""


def exprs_of(plan: Plan, output: int) -> list[Expr]:
    """The expressions that one output of the program needs."""
    return reachable([plan.outputs[output]])


def calls(exprs: Sequence[Expr], name: str) -> list[Expr]:
    """The calls of an op, by its name without overload."""
    return [e for e in exprs if not isinstance(e.target, Leaf) and getattr(e.target, "_opname", "") == name]


def check_stages(case: Case, group: Group) -> None:
    """Context work runs once per request; nothing is dead; products get matrices that nobody expanded."""
    exprs = exprs_of(group.plans[FULL.name], group.cases.index(case))
    if case.once:
        found = calls(exprs, case.once)
        assert any(e.stage is Stage.CONTEXT for e in found), f"{case.once} is not in the context stage: {found}"
    if case.never:
        assert not calls(exprs, case.never), case.never
    for plan in group.plans.values():
        if not plan.policy.unchanged:
            check_products(exprs_of(plan, group.cases.index(case)))


def check_products(exprs: Sequence[Expr]) -> None:
    """No product that a law wrote has an operand of one dim, or one that was expanded for it."""
    for expr in exprs:
        if expr.target in PRODUCTS and expr.origin.rule != "opaque":
            for operand in (o for o in expr.args[-2:] if isinstance(o, Expr)):
                assert len(operand.dims) >= 2, f"{expr} has an operand of one dim"
                assert operand.target is not aten.expand.default, f"{expr} multiplies an expanded tensor"


def check_graphs(group: Group) -> None:
    """The stages are well-formed graphs without dead code."""
    for ranker in group.rankers.values():
        stages = ranker.stages
        for graph_module in (stages.weight_stage, stages.context_stage, stages.candidate_stage, stages.whole):
            graph_module.graph.lint()
            dead = [n for n in graph_module.graph.nodes if n.op == "call_function" and not n.users]
            assert not dead, f"{dead} in {graph_module._get_name()}"


# ------------------------------------------------------------------------------------------------------ numbers


def check_numbers(case: Case, group: Group, rows: int) -> None:
    """Equal to the model in float64; to the last bit as served, where only data moves."""
    at = group.cases.index(case)
    truth, expected = (results[at] for results in model_outputs(group, rows))
    for policy in POLICIES:
        wide, found = (results[at] for results in ranker_outputs(group, policy, rows))
        assert_close(wide, truth, f"under '{policy.name}' with {rows} candidates")
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), policy.name
        if case.exact:
            assert torch.equal(found, expected), policy.name


@cache
def model_outputs(group: Group, rows: int) -> tuple[list[Tensor], list[Tensor]]:
    """All outputs of the model on tiled rows: in float64, and as served."""
    given = tile(ROLES, group.request(rows))
    return run_float64(group.captured.graph_module, placeholders(group.captured, given)), group.captured.run(given)


@cache
def ranker_outputs(group: Group, policy: Policy, rows: int) -> tuple[list[Tensor], list[Tensor]]:
    """All outputs of the rewritten model: in float64, and as served."""
    ranker, request = group.rankers[policy.name], group.request(rows)
    served = ranker.outputs(ranker.context_stage(request.context), request.target)
    return run_float64(ranker.stages.whole, ranker.arguments(request)), list(served)


def assert_close(found: Tensor, expected: Tensor, where: str = "", tolerance: float = 1e-9) -> None:
    """Equal relative to the largest element; NaN and infinities in the same places."""
    assert found.shape == expected.shape, where
    if not expected.is_floating_point() or not expected.numel():
        assert torch.equal(found, expected), where
        return
    found, expected = found.double(), expected.double()
    finite = expected[expected.isfinite()].abs()
    scale = max(float(finite.max()) if finite.numel() else 0.0, 1e-3)
    same = torch.isclose(found, expected, rtol=0.0, atol=tolerance * scale, equal_nan=True)
    assert same.all(), f"{where}: off by {float((found - expected).abs().nan_to_num().max()):.2e} of {scale:.1e}"
