"""Spellings of one interaction, each a module of a few lines, as real models write it.

    @spelled(work=K * D * U + N * M * D * U)
    class Stacked(nn.Module): ...

captures the module, rewrites it, and demands that its scores are those of the eager module on tiled rows, in float64
and as served; that one request of N candidates takes no more than `work` multiply-adds; that ops named in `once` run
once per request; and that no op stays as the model wrote it but those in `opaque`, for the reason given there.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from laws.harness import Like, assert_close, calls
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rankopt.capture import CapturedModel, capture
from rankopt.errors import CaptureError
from rankopt.expressions import Stage
from rankopt.float64 import run_float64
from rankopt.pipeline import build
from rankopt.plan import FULL, LATE, SHARED, SPLIT, UNCHANGED, Plan, interpret
from rankopt.ranker import Ranker
from rankopt.requests import Request, split_rows, tile
from rankopt.selectors import InputRole, resolve_roles

K, M, D, U, IDS, STEPS = 6, 2, 8, 12, 11, 5
"""Context fields, target fields, their width, units of a layer, ids of a table, steps of a history."""
F = K + M
N = 1000
PAIRS = F * (F - 1) // 2
ROW_COUNTS = (2, 37)
CHOICES = (FULL, LATE, SHARED, SPLIT)
TOLERANCE = 1.02

FIELDS = {"c": Like((K, D)), "t": Like((M, D))}
OVER_HISTORY = {"history": Like((STEPS, D)), "target": Like((D,))}


def ids(*shape: int, dtype: torch.dtype = torch.int64) -> Like:
    """An input of ids [R, *shape]; 0 is among them, which may stand for padding."""
    return Like(shape, high=IDS, dtype=dtype)


def mask(*shape: int) -> Like:
    """An input of zeros and ones [R, *shape]."""
    return Like(shape, high=2, dtype=torch.bool)


@dataclass(frozen=True, slots=True, eq=False)
class Spelling:
    """A module, its inputs, and what is expected of it."""

    name: str
    model: Callable[[], nn.Module]
    inputs: Mapping[str, Like]
    context: Sequence[str]
    work: float | None
    share: float | None
    once: Sequence[str]
    opaque: Mapping[str, str]
    refused: str

    @property
    def roles(self) -> tuple[InputRole, ...]:
        shapes = {name: (2, *like.shape) for name, like in self.inputs.items()}
        return resolve_roles(shapes, list(self.context))

    def rows(self, count: int, seed: int) -> dict[str, Tensor]:
        return {name: like.rows(count, seed + i) for i, (name, like) in enumerate(self.inputs.items())}

    def request(self, candidates: int) -> Request:
        return split_rows(self.roles, self.rows(candidates, 10))


_SPELLINGS: dict[str, list[Spelling]] = {}


def spelled(
    *arguments: Any,
    inputs: Mapping[str, Like] = FIELDS,
    context: Sequence[str] = ("c*",),
    work: float | None = None,
    share: float | None = None,
    once: Sequence[str] = (),
    opaque: Mapping[str, str] | None = None,
    refused: str = "",
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Makes a module, built with `arguments`, a spelling to test.

    inputs: what a row consists of, by parameter of `forward`. context: selectors of what belongs to the request.
    work: multiply-adds of matrix products for N candidates. share: or what part of the original's there may be left.
    once: ops that run once per request. opaque: op -> reason, what must stay as the model wrote it.
    refused: the model cannot be captured, for this cause.
    """

    def register(model: type[nn.Module]) -> type[nn.Module]:
        name = "-".join([model.__name__, *map(str, arguments)])
        found = Spelling(name, lambda: model(*arguments), inputs, context, work, share, once, opaque or {}, refused)
        _SPELLINGS.setdefault(model.__module__, []).insert(0, found)
        return model

    return register


def spelling_tests(module: str) -> Callable[..., None]:
    """The test of all spellings of a module: of each class the first, and the others with RANKOPT_SWEEP=1."""
    spellings = _SPELLINGS[module]
    if not os.environ.get("RANKOPT_SWEEP"):
        spellings = list({one.name.split("-")[0]: one for one in reversed(spellings)}.values())

    @pytest.mark.parametrize("spelling", spellings, ids=lambda one: one.name)
    def test_spelling(spelling: Spelling) -> None:
        torch.manual_seed(0)
        model = spelling.model().eval()
        if spelling.refused:
            check_refused(spelling, model)
            return
        captured = capture(model, (), spelling.rows(7, 0))
        best = best_plan(spelling, captured)
        check_decisions(spelling, best)
        check_work(spelling, captured, best)
        check_scores(spelling, model, build(captured, spelling.roles, best))

    return test_spelling


def best_plan(spelling: Spelling, captured: CapturedModel) -> Plan:
    """The first plan within the bound, or else the one with the fewest multiply-adds."""
    plans: list[Plan] = []
    for policy in CHOICES:
        plans.append(interpret(captured, spelling.roles, N, policy))
        if spelling.work is None or plans[-1].flops.at(N) / 2 <= TOLERANCE * spelling.work:
            return plans[-1]
    return min(plans, key=lambda plan: plan.flops.at(N))


def check_refused(spelling: Spelling, model: nn.Module) -> None:
    """The error names the cause, the user's line and the fix."""
    with pytest.raises(CaptureError, match=spelling.refused) as caught:
        capture(model, (), spelling.rows(7, 0))
    assert "/spellings/test_" in str(caught.value), caught.value
    assert "fix: " in str(caught.value)


def check_decisions(spelling: Spelling, plan: Plan) -> None:
    """Laws applied to all ops but those of which it is known that they stay as they are."""
    refusals = {d.op.split(".")[1]: d.refusal for d in plan.interpretation.decisions if d.refusal}
    assert set(refusals) == set(spelling.opaque), refusals
    for op, reason in spelling.opaque.items():
        assert reason in refusals[op], refusals


def check_work(spelling: Spelling, captured: CapturedModel, plan: Plan) -> None:
    """Multiply-adds of one request, and what runs once for it."""
    reached = plan.flops.at(N) / 2
    if spelling.work is not None:
        assert reached <= TOLERANCE * spelling.work, f"{reached:,.0f} multiply-adds, not {spelling.work:,.0f}"
    if spelling.share is not None:
        original = interpret(captured, spelling.roles, N, UNCHANGED).flops.at(N) / 2
        assert reached <= spelling.share * original, f"{reached:,.0f} multiply-adds of {original:,.0f}"
    for op in spelling.once:
        found = [expr.stage for expr in calls(plan.exprs, op)]
        assert Stage.CONTEXT in found, f"{op}: {found}"


def check_scores(spelling: Spelling, model: nn.Module, ranker: Ranker) -> None:
    """The scores are those of the eager module on tiled rows: in float64, and nearly so as served."""
    for candidates in ROW_COUNTS:
        request = spelling.request(candidates)
        rows = tile(spelling.roles, request)
        wide = run_float64(ranker.stages.whole, ranker.arguments(request))
        served = ranker.outputs(ranker.context_stage(request.context), request.target)
        for found, expected in zip(wide, eager(model, rows, torch.float64), strict=True):
            assert_close(found, expected, f"in float64 with {candidates} candidates")
        for found, expected in zip(served, eager(model, rows, torch.float32), strict=True):
            assert_close(found, expected, f"as served with {candidates} candidates", 1e-4)


def eager(model: nn.Module, rows: Mapping[str, Tensor], dtype: torch.dtype) -> list[Tensor]:
    """What the module itself computes, in `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        given = {name: x.to(dtype) if x.is_floating_point() else x.clone() for name, x in rows.items()}
        with torch.no_grad():
            return pytree.tree_leaves(copy.deepcopy(model).to(dtype)(**given))
    finally:
        torch.set_default_dtype(before)


# ------------------------------------------------------------------------------------------------------ fields


def fields(c: Tensor, t: Tensor) -> Tensor:
    """[R, K, D], [R, M, D] -> [R, F, D]; the target fields stand among those of the context."""
    return torch.cat([c[:, :3], t[:, :1], c[:, 3:], t[:, 1:]], 1)
