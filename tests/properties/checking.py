"""Is a recorded program the same after rewriting? Under some policies, at several numbers of candidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from properties.recorder import Recorded
from torch import Tensor, fx

from rankopt.axes import Rows
from rankopt.eager import eager
from rankopt.expressions import Expr, Leaf, Stage
from rankopt.plan import POLICIES, Plan, interpret
from rankopt.requests import Request, tile
from rankopt.stages import Stages, split
from rankopt.verify import placeholders
from rankopt.workspace import Policy


class Mismatch(AssertionError):
    """The rewritten program gives other numbers."""


def assert_same(
    recorded: Recorded,
    policies: Sequence[Policy] = POLICIES,
    candidates: int = 64,
    row_counts: Iterable[int] = (1, 2, 5),
    *,
    staged: bool = True,
    scale: float | None = None,
) -> None:
    """Raises Mismatch, with the program's code, where a policy changes a result.

    `staged` runs the three stages; otherwise the program is evaluated expression by expression, which is faster.
    Errors are relative to `scale`, or else to the largest number that the program computed.
    """
    requests = [recorded.request(rows) for rows in row_counts]
    expected = [original(recorded, request) for request in requests]
    weights = {weight.name: weight.tensor for weight in recorded.captured.weights}
    for policy, plan in plans_of(recorded, policies, candidates):
        stages = stages_of(plan) if staged else None
        for request, wanted in zip(requests, expected, strict=True):
            given = request if policy.share else Request({}, tile(recorded.roles, request))
            found = run(stages, weights, given, recorded.tolerance) if stages else evaluate(plan, weights, given)
            for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
                reason = difference(one, other, scale or recorded.scale, recorded.tolerance)
                if reason:
                    where = f"output {i} with {request.candidates} candidates under '{policy.name}'"
                    raise Mismatch(f"{where}: {reason}\n{recorded.code}")


def plans_of(recorded: Recorded, policies: Sequence[Policy], candidates: int) -> Iterator[tuple[Policy, Plan]]:
    """The plan of each policy, and the same with its products laid out as their readers want them, if they want it."""
    for policy in policies:
        plan = interpret(recorded.captured, recorded.roles, candidates, policy)
        yield policy, plan
        if layouts := plan.workspace.layouts.better(plan.workspace.profile):
            yield policy, interpret(recorded.captured, recorded.roles, candidates, policy, layouts=layouts)


def stages_of(plan: Plan) -> Stages:
    """The stages of a plan, checked for what all stages have in common."""
    stages = split(plan.exprs, plan.outputs, plan.workspace.program.constants)
    assert_tidy(stages)
    return stages


def evaluate(plan: Plan, weights: Mapping[str, Tensor], request: Request) -> list[Tensor]:
    """The outputs of a plan, computed expression by expression."""
    env: dict[int, Any] = {}
    leaves = {Leaf.WEIGHT: weights, Leaf.CONSTANT: plan.workspace.program.constants}
    inputs = {Stage.CONTEXT: request.context, Stage.CANDIDATE: request.target}

    def plug(item: Any) -> Any:
        if isinstance(item, Expr):
            return env[item.serial]
        return [plug(each) for each in item] if isinstance(item, tuple | list) else item

    for expr in plan.exprs:
        if isinstance(expr.target, Leaf):
            source = inputs[expr.stage] if expr.target is Leaf.INPUT else leaves[expr.target]
            env[expr.serial] = source[expr.args[0]]
        else:
            kwargs = {name: plug(item) for name, item in expr.kwargs.items()}
            env[expr.serial] = expr.target(*(plug(item) for item in expr.args), **kwargs)
        if expr.shape is not None:
            _check_shape(expr, env[expr.serial], request.candidates)
    return [env[expr.serial] for expr in plan.outputs]


def _check_shape(expr: Expr, tensor: Tensor, rows: int) -> None:
    expected = [size.times * rows if isinstance(size, Rows) else size for size in expr.dims]
    if list(tensor.shape) != expected or tensor.dtype != expr.dtype:
        found = f"{tensor.dtype} {list(tensor.shape)}"
        raise Mismatch(f"{expr.target} gives {found}, planned was {expr.dtype} {expected}")


def original(recorded: Recorded, request: Request) -> list[Tensor]:
    """The outputs of the program on tiled rows."""
    values = placeholders(recorded.captured, tile(recorded.roles, request))
    nodes = recorded.captured.graph_module.graph.find_nodes(op="placeholder")
    return list(recorded.captured.graph_module(*(values[node.target] for node in nodes)))


def run(stages: Stages, weights: Mapping[str, Tensor], request: Request, tolerance: float) -> Sequence[Tensor]:
    """The outputs of the three stages. Run eagerly, each must give the same numbers and leave its arguments alone."""
    sources = [stages.constants[s.name] if s.is_constant else weights[s.name] for s in stages.sources]
    prepared = stages.weight_stage(*sources)
    context = (request.context[name] for name in stages.context_inputs)
    state = _both_ways(stages.context_stage, [*(prepared[i] for i in stages.context_weights), *context], tolerance)
    target = (request.target[name] for name in stages.target_inputs)
    return _both_ways(
        stages.candidate_stage, [*(prepared[i] for i in stages.candidate_weights), *state, *target], tolerance
    )


def _both_ways(stage: fx.GraphModule, arguments: Sequence[Tensor], tolerance: float) -> Sequence[Tensor]:
    results: Sequence[Tensor] = stage(*arguments)
    kept = [argument.clone() for argument in arguments]
    for found, expected in zip(eager(stage)(*arguments), results, strict=True):
        scale = float(expected.double().abs().nan_to_num(0.0, 0.0, 0.0).max()) if expected.numel() else 1.0
        if why := difference(found, expected, max(scale, 1.0), tolerance):
            raise Mismatch(f"run eagerly, a stage gives other numbers: {why}")
    for argument, copy in zip(arguments, kept, strict=True):
        if not torch.equal(argument.nan_to_num(), copy.nan_to_num()):
            raise Mismatch("run eagerly, a stage overwrites its arguments")
    return results


def difference(found: Tensor, expected: Tensor, scale: float, tolerance: float) -> str:
    """Why two results are not the same; empty if they are."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{found.dtype} {list(found.shape)} instead of {expected.dtype} {list(expected.shape)}"
    if not expected.is_floating_point():
        return "" if torch.equal(found, expected) else "other integers"
    if not torch.equal(found.isnan(), expected.isnan()):
        return "NaN elsewhere"
    with_limits = torch.isclose(found, expected, rtol=0.0, atol=tolerance * scale, equal_nan=True)
    if not with_limits.all():
        return f"off by {float((found - expected).abs().nan_to_num().max()):.2e} where numbers reach {scale:.1e}"
    return ""


def assert_tidy(stages: Stages) -> None:
    """No dead code, no stage out of order, no expand before a product, no 1-D operand of a product."""
    for graph_module in (stages.weight_stage, stages.context_stage, stages.candidate_stage):
        graph_module.graph.lint()
        for node in graph_module.graph.nodes:
            if node.op == "call_function":
                assert node.users, f"{node} has no users in {graph_module._get_name()}"
    for node in stages.context_stage.graph.nodes:
        if node.op == "call_function":
            assert node.meta["expr"].stage is Stage.CONTEXT, f"{node} is in the context stage"


def products(graph: fx.Graph) -> list[fx.Node]:
    """The matrix products of a graph."""
    aten = torch.ops.aten
    kinds = (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.matmul.default)
    return [node for kind in kinds for node in graph.find_nodes(op="call_function", target=kind)]


def plan_of(recorded: Recorded, policy: Policy, candidates: int = 64) -> Plan:
    """The plan of a recorded program."""
    return interpret(recorded.captured, recorded.roles, candidates, policy)
