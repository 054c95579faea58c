"""Verification: the original on tiled rows against the stages.

Both are run in float64, where they must agree to rounding, and in the served type, where the rewritten ranker may be no
further from the float64 truth than the original was (within a factor of two). No embedding table is copied for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rankopt.agreement import Agreement, compare
from rankopt.capture import CapturedModel
from rankopt.emit import emit
from rankopt.errors import VerificationError
from rankopt.expressions import Expr, Leaf, Stage, reachable
from rankopt.float64 import run_float64
from rankopt.interface import Interface
from rankopt.materialise import to_tensor
from rankopt.plan import Plan
from rankopt.ranker import Ranker
from rankopt.requests import Request, draw_request, tile
from rankopt.verification import Divergence, Verification

CANDIDATES = (1, 2, 37, 300)
"""Numbers of candidates at which a ranker is verified unless told otherwise."""


def numbers(interface: Interface, usual: Sequence[int] = CANDIDATES) -> tuple[int, ...]:
    """The usual numbers of candidates, and for every plan that serves none of them the smallest that it serves."""
    places = {interface.place(n) for n in usual}
    return (*usual, *(span.first for i, span in enumerate(interface.ranges) if i not in places))


def verify(
    captured: CapturedModel,
    ranker: Ranker,
    requests: Sequence[Request] | int = 1,
    candidates: Sequence[int] = CANDIDATES,
    seed: int = 0,
    plans: Sequence[Plan] = (),
) -> Verification:
    """Compares `ranker` with the model that `captured` holds.

    Args:
        captured: the original.
        ranker: the rewritten one.
        requests: given requests, or how many to draw per number of candidates, in the ranges of the examples.
        candidates: numbers of candidates of the requests that are drawn.
        seed: of the drawing.
        plans: those that the ranker was made of, to find the first diverging node.
    """
    roles = ranker.interface.roles
    if isinstance(requests, int):
        generator = torch.Generator().manual_seed(seed)
        requests = [draw_request(roles, captured.examples, n, generator) for n in candidates for _ in range(requests)]
    alone = {ranker.interface.place(n): ranker.at(n) for n in (request.candidates for request in requests)}
    if not requests:
        raise VerificationError("no request to verify with.\n  fix: pass at least one")
    agreements = [
        _compare(captured, alone[ranker.interface.place(request.candidates)], request) for request in requests
    ]
    worst = max(range(len(requests)), key=lambda i: (not agreements[i].identical(), agreements[i].ratio, i))
    whole = Agreement.over(agreements)
    divergence = None
    if plans and not whole.identical():
        plan = plans[ranker.interface.place(requests[worst].candidates)]
        divergence = first_divergence(captured, plan, requests[worst], tile(roles, requests[worst]))
    return Verification(whole, tuple(r.candidates for r in requests), divergence, requests[worst])


def _compare(captured: CapturedModel, ranker: Ranker, request: Request) -> Agreement:
    rows = tile(ranker.interface.roles, request)
    with torch.no_grad():
        original = captured.run(rows)
        state = ranker.context_stage(request.context)
        rewritten = ranker.outputs(state, request.target)
    truth = run_float64(captured.graph_module, placeholders(captured, rows))
    whole = run_float64(ranker.stages.whole, ranker.arguments(request))
    return compare(truth, original, rewritten, whole, ranker.state_dtype)


def placeholders(captured: CapturedModel, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arguments of the captured graph by placeholder, for rows by input name."""
    return captured.arguments(rows)


def first_divergence(
    captured: CapturedModel, plan: Plan, request: Request, rows: Mapping[str, Tensor], tolerance: float = 1e-9
) -> Divergence | None:
    """The first node whose value, rebuilt from what the interpreter knew of it, differs in float64."""
    truth: dict[str, Tensor] = {}
    run_float64(captured.graph_module, placeholders(captured, rows), keep=truth.__setitem__)
    lines = {node.name: node.meta.get("stack_trace", "") for node in captured.graph_module.graph.nodes}
    values = {name: value for name, value in plan.interpretation.values.items() if name in truth}
    exprs: dict[str, Expr] = {name: to_tensor(plan.workspace, value) for name, value in values.items()}
    found = _run(plan, list(exprs.values()), captured, request)
    for name, value in zip(exprs, found, strict=True):
        expected = truth[name].double()
        scale = expected.abs().max().clamp_min(1e-30) if expected.numel() else 1.0
        error = float(((value.double() - expected).abs() / scale).nan_to_num(0.0).max()) if expected.numel() else 0.0
        if value.shape != expected.shape or error > tolerance:
            return Divergence(name, _user_line(lines[name]), error)
    return None


def _run(plan: Plan, results: list[Expr], captured: CapturedModel, request: Request) -> list[Tensor]:
    body = reachable(results)
    leaves = {f"leaf_{expr.serial}": expr for expr in body if isinstance(expr.target, Leaf)}
    weights = {weight.name: weight.tensor.detach() for weight in captured.weights}

    def value(expr: Expr) -> Tensor:
        name = str(expr.args[0])
        if expr.target is Leaf.INPUT:
            return request.context[name] if expr.stage is Stage.CONTEXT else request.target[name]
        return weights[name] if expr.target is Leaf.WEIGHT else plan.workspace.program.constants[name]

    module = emit(leaves, body, results, "Intermediates")
    return run_float64(module, {name: value(expr) for name, expr in leaves.items()})


def _user_line(trace: str) -> str:
    lines = [line.strip() for line in trace.strip().splitlines()]
    return " ".join(lines[-2:])
