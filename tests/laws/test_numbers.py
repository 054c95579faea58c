"""Numbers that are not ordinary: NaN, infinities, half precision, strides, scalars."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from laws.harness import ROLES, ROW_COUNTS, assert_close
from torch import Tensor, nn
from torch.nn import functional as F

from rankopt.capture import CapturedModel, capture
from rankopt.float64 import run_float64
from rankopt.pipeline import build
from rankopt.plan import POLICIES, interpret
from rankopt.ranker import Ranker
from rankopt.requests import Request, tile
from rankopt.selectors import InputRole, Role
from rankopt.verify import placeholders


class Everything(nn.Module):
    """A layer of each kind over mixed fields; one score per candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(4, 4), nn.Linear(20, 1)
        self.layer_norm, self.batch_norm = nn.LayerNorm(20), nn.BatchNorm1d(20).eval()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([c, t], 1)  # [R, 5, 4]
        x = x + self.linear(x).sigmoid() * x
        x = x + self.attention(x, x, x, need_weights=False)[0]
        gram = torch.bmm(x, x.mT).softmax(-1)
        x = self.batch_norm(self.layer_norm((gram @ x).flatten(1)))
        return self.head(x).squeeze(-1)


@cache
def everything() -> tuple[CapturedModel, dict[str, Ranker]]:
    torch.manual_seed(0)
    return rewritten(Everything().eval(), torch.randn(5, 3, 4), torch.randn(5, 2, 4))


def rewritten(model: nn.Module, c: Tensor, t: Tensor) -> tuple[CapturedModel, dict[str, Ranker]]:
    captured = capture(model, (c, t))
    plans = [interpret(captured, ROLES, 64, policy) for policy in POLICIES]
    return captured, {plan.policy.name: build(captured, ROLES, plan) for plan in plans}


def scores(ranker: Ranker, request: Request) -> Tensor:
    with torch.no_grad():
        return ranker.outputs(ranker.context_stage(request.context), request.target)[0]


def nan_candidate(c: Tensor, t: Tensor) -> None:
    t[3, 0, 1] = math.nan


def nan_context(c: Tensor, t: Tensor) -> None:
    c[0, 1, 2] = math.nan


def infinite_candidate(c: Tensor, t: Tensor) -> None:
    t[1, 1] = math.inf


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("spoil", [nan_candidate, nan_context, infinite_candidate], ids=lambda f: f.__name__)
def test_nan_stays_with_its_candidate(spoil: Callable[[Tensor, Tensor], None], policy: Any) -> None:
    """NaN in one candidate is NaN for that candidate alone; NaN in the context, for all."""
    captured, rankers = everything()
    c, t = torch.randn(1, 3, 4), torch.randn(6, 2, 4)
    spoil(c, t)
    request = Request({"c": c}, {"t": t})
    expected = captured.run(tile(ROLES, request))[0].isnan()
    assert expected.sum() == (6 if spoil is nan_context else 1)
    assert torch.equal(scores(rankers[policy.name], request).isnan(), expected)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_strides_do_not_matter(policy: Any) -> None:
    """Transposed, expanded and strided inputs."""
    _, rankers = everything()
    c, t = torch.randn(1, 3, 4), torch.randn(6, 2, 4)
    plain = scores(rankers[policy.name], Request({"c": c}, {"t": t}))
    odd = Request({"c": c.mT.contiguous().mT}, {"t": t.repeat_interleave(2, 0)[::2]})
    assert not odd.context["c"].is_contiguous()
    torch.testing.assert_close(scores(rankers[policy.name], odd), plain)
    same = scores(rankers[policy.name], Request({"c": c}, {"t": t[:1].expand(6, -1, -1)}))
    torch.testing.assert_close(same, plain[:1].expand(6))


class Scaled(nn.Module):
    """A scalar that all rows share, and sums over nothing but numbers."""

    def forward(self, c: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return (torch.cat([c, t], 1) * s + s).softmax(1).sum((1, 2)) * s.sqrt()


def test_scalar_inputs() -> None:
    """An input without dims is context; its dtype does not promote the others."""
    captured = capture(Scaled().eval(), (torch.randn(5, 3, 4), torch.randn(5, 2, 4), torch.tensor(0.7).double()))
    roles = (*ROLES, InputRole("s", Role.CONTEXT))
    for policy in POLICIES:
        ranker = build(captured, roles, interpret(captured, roles, 64, policy))
        for rows in ROW_COUNTS:
            request = Request(
                {"c": torch.randn(1, 3, 4), "s": torch.tensor(2.0).double()}, {"t": torch.randn(rows, 2, 4)}
            )
            expected = captured.run(tile(roles, request))[0]
            found = scores(ranker, request)
            assert found.dtype == expected.dtype == torch.float32
            torch.testing.assert_close(found, expected)


class Half(nn.Module):
    """What CPUs compute in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(20)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([c, t], 1)
        weights = torch.bmm(self.linear(x), x.mT).softmax(-1)
        return self.norm((weights @ x).flatten(1)).mean(1) + F.relu(x).amax((1, 2)) + 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    """As near to the truth as the model itself, within a factor."""
    torch.manual_seed(0)
    model = Half().eval().to(dtype)
    captured, rankers = rewritten(model, torch.randn(5, 3, 4, dtype=dtype), torch.randn(5, 2, 4, dtype=dtype))
    request = Request({"c": torch.randn(1, 3, 4, dtype=dtype)}, {"t": torch.randn(40, 2, 4, dtype=dtype)})
    rows = tile(ROLES, request)
    with torch.no_grad():
        wide = Half().eval().double()
        wide.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
        truth = wide(rows["c"].double(), rows["t"].double())
    own = float((captured.run(rows)[0] - truth).abs().max())
    for name, ranker in rankers.items():
        found = scores(ranker, request)
        assert found.dtype == dtype
        assert float((found - truth).abs().max()) < 3 * own, name


def test_numbers_are_exact_in_float64() -> None:
    """0.1 is 0.1 in a float64 run of a float32 model, not the float32 that is nearest."""
    captured, rankers = rewritten(Tenths().eval(), torch.randn(5, 4), torch.randn(5, 4))
    request = Request({"c": torch.randn(1, 4)}, {"t": torch.randn(7, 4)})
    truth = run_float64(captured.graph_module, placeholders(captured, tile(ROLES, request)))[0]
    for name, ranker in rankers.items():
        assert_close(run_float64(ranker.stages.whole, ranker.arguments(request))[0], truth, name, tolerance=1e-14)


class Tenths(nn.Module):
    """Numbers that no float represents."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return (c + 0.1).sigmoid() * t + torch.full((t.shape[0], 1), 0.3) - 0.7 * (c - 0.9)
