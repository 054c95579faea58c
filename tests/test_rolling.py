"""Loops over fields that a model unrolled are rolled up again: few calls, however many pairs there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from rankopt.capture import CapturedModel, capture
from rankopt.chains import chain_links
from rankopt.cost import FREE
from rankopt.expressions import Leaf, Stage
from rankopt.float64 import run_float64
from rankopt.pipeline import build
from rankopt.plan import FULL, POLICIES, Plan, interpret
from rankopt.requests import Request, tile
from rankopt.selectors import InputRole, Role
from rankopt.verify import placeholders

K, M, D = 7, 4, 3
F = K + M
ROLES = (InputRole("c", Role.CONTEXT), InputRole("t", Role.TARGET))
PAIRS = [(i, j) for i in range(F) for j in range(i + 1, F)]


def fields(c: Tensor, t: Tensor) -> Tensor:
    """[R, F, D], context and target interleaved."""
    return torch.cat([c, t], 1)[:, [4, 9, 0, 7, 3, 1, 10, 6, 2, 8, 5]]


class Loop(nn.Module):
    """A function of the fields and of a matrix per pair."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.Parameter(torch.randn(len(PAIRS), D, D))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return self.function(fields(c, t), self.weights)


def products(x: Tensor, w: Tensor) -> Tensor:
    return torch.cat([x[:, i] * x[:, j] for i, j in PAIRS], 1).relu()


def stacked(x: Tensor, w: Tensor) -> Tensor:
    one = torch.unbind(x, 1)
    return torch.stack([one[i] * one[j] for i, j in PAIRS], 1).tanh()


def packed(x: Tensor, w: Tensor) -> Tensor:
    one = x.flatten(1).split(D, 1)
    return torch.cat([one[i] * one[j] for i, j in PAIRS], 1).exp()


def dots(x: Tensor, w: Tensor) -> Tensor:
    return torch.cat([(x[:, i] * x[:, j]).sum(-1, keepdim=True) for i, j in PAIRS], 1).relu()


def total(x: Tensor, w: Tensor) -> Tensor:
    return sum((x[:, i] * x[:, j]).sum(-1) for i, j in PAIRS)  # type: ignore[return-value]


def running(x: Tensor, w: Tensor) -> Tensor:
    result = x.new_zeros(x.shape[0], D)
    for i, j in PAIRS:
        result = result + x[:, i] * x[:, j]
    return result.relu()


def bilinear(x: Tensor, w: Tensor) -> Tensor:
    return torch.cat([(x[:, i] @ w[p]) * x[:, j] for p, (i, j) in enumerate(PAIRS)], 1).relu()


def bilinear_per_left_field(x: Tensor, w: Tensor) -> Tensor:
    return torch.stack([(x[:, i] @ w[i]) * x[:, j] for i, j in PAIRS], 1).relu()


LOOPS = [products, stacked, packed, dots, total, running, bilinear, bilinear_per_left_field]


@cache
def rewrite(function: Callable[[Tensor, Tensor], Tensor]) -> tuple[CapturedModel, dict[str, Plan]]:
    captured = capture(Loop(function).eval(), (torch.randn(5, K, D), torch.randn(5, M, D)))
    return captured, {policy.name: interpret(captured, ROLES, 512, policy) for policy in POLICIES}


def calls(plan: Plan, stage: Stage) -> int:
    """Calls that do work."""
    return sum(e.stage is stage and not isinstance(e.target, Leaf) and e.target not in FREE for e in plan.exprs)


@pytest.mark.parametrize("function", LOOPS, ids=lambda function: function.__name__)
def test_a_loop_over_pairs_is_a_few_calls(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    _, plans = rewrite(function)
    before, after = plans["unchanged"], plans[FULL.name]
    assert calls(before, Stage.CANDIDATE) > len(PAIRS)
    assert calls(after, Stage.CANDIDATE) < 40
    assert calls(after, Stage.CONTEXT) < 20


@pytest.mark.parametrize("function", LOOPS, ids=lambda function: function.__name__)
def test_a_rolled_loop_is_equal(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    captured, plans = rewrite(function)
    for rows in (1, 3, 50):
        request = Request({"c": torch.randn(1, K, D)}, {"t": torch.randn(rows, M, D)})
        (truth,) = run_float64(captured.graph_module, placeholders(captured, tile(ROLES, request)))
        for plan in plans.values():
            ranker = build(captured, ROLES, plan)
            (found,) = run_float64(ranker.stages.whole, ranker.arguments(request))
            torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9, msg=plan.policy.name)


def test_few_parts_stay_as_they_are() -> None:
    _, plans = rewrite(lambda x, w: torch.cat([x[:, 0] * x[:, 1], x[:, 2] * x[:, 3]], 1).relu())
    assert calls(plans[FULL.name], Stage.CANDIDATE) <= calls(plans["unchanged"], Stage.CANDIDATE)


# ------------------------------------------------------------------------------------------------------ chains


def links(function: Callable[..., Tensor], count: int) -> list[bool]:
    """Which additions of a function of `count` tensors belong to a chain, and whether they end it."""

    class Model(nn.Module):
        def forward(self, *xs: Tensor) -> Tensor:
            return function(*xs)

    captured = capture(Model().eval(), tuple(torch.randn(5, 3) for _ in range(count)))
    return list(chain_links(captured.graph_module.graph, captured.rows).values())


def test_a_long_sum_is_one_chain() -> None:
    found = links(lambda *xs: sum(xs[1:], xs[0]), 9)
    assert sorted(found) == [False] * 7 + [True]


def test_a_short_sum_is_no_chain() -> None:
    assert links(lambda *xs: sum(xs[1:], xs[0]), 6) == []


def test_a_partial_sum_that_is_read_ends_its_chain() -> None:
    def halves(*xs: Tensor) -> Tensor:
        first = sum(xs[1:8], xs[0])
        return first.relu() + sum(xs[8:], first)

    assert sum(links(halves, 10)) == 1


def test_a_broadcast_addend_is_no_link() -> None:
    assert links(lambda *xs: sum(xs[1:], xs[0][:, :1]), 7) == []
