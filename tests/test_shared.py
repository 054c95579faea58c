"""Products that share factors: what several terms have in common is multiplied once, and only where that pays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rankopt import cost
from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import FULL, Plan, interpret
from rankopt.verify import numbers, verify

WIDTH, SMALL, HEAD, N = 256, 64, 96, 4096
"""One map of a target alone is better multiplied by a layer than the head is; two of them are not."""


class Layers(nn.Module):
    """A context [R, 256] gated by what two layers make of two targets [R, 64] each, read by a head of 96."""

    def __init__(self, reader: Callable[[Layers, Tensor, Tensor, Tensor], Tensor], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.reader = reader
        self.of_first, self.of_second = nn.Linear(SMALL, WIDTH, bias=False), nn.Linear(SMALL, WIDTH, bias=False)
        self.mixed, self.other = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, HEAD)

    def forward(self, context: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return self.head(self.reader(self, context, first.tanh(), second.exp())).relu().sum(1)


def shared(m: Layers, c: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Both come through one layer behind the same gate."""
    behind: Tensor = m.mixed(c * m.of_first(t) + c.exp() * m.of_second(u))
    return c * behind


def residual(m: Layers, c: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """And past it, as in a cross layer: (A + 1) B = A B + B."""
    x = c * m.of_first(t) + c.exp() * m.of_second(u)
    return c * m.mixed(x) + x


def through_two(m: Layers, c: Tensor, t: Tensor, u: Tensor) -> Tensor:
    return c * m.mixed(c * m.other(c * m.of_first(t) + c.exp() * m.of_second(u)))


def signs_and_scales(m: Layers, c: Tensor, t: Tensor, u: Tensor) -> Tensor:
    return c * m.mixed(2.5 * c * m.of_first(t) - c.exp() * m.of_second(u)) - 3.0 * m.of_first(t)


def gates_of_the_target(m: Layers, c: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """What they share is contracted and also kept by the rest: c_k t_k W_k."""
    gate = m.of_second(u).sigmoid()
    return c * c.exp() * gate + c * gate * m.of_first(t).sum(1, keepdim=True)


def twice_the_same(m: Layers, c: Tensor, t: Tensor, u: Tensor) -> Tensor:
    return c * m.mixed(c * m.of_first(t)) + c * m.mixed(c.exp() * m.of_first(t)) + c * c * m.of_first(t)


def different_layers(m: Layers, c: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """They share the gate alone."""
    return c * m.mixed(c * m.of_first(t)) + c * m.other(c.exp() * m.of_second(u))


READERS = [shared, residual, through_two, signs_and_scales, gates_of_the_target, twice_the_same, different_layers]


def planned(reader: Callable[[Layers, Tensor, Tensor, Tensor], Tensor]) -> Plan:
    """The full plan of a model, after the scores were checked in float64 and float32."""
    rows = {
        "context": torch.randn(1, WIDTH).expand(5, -1), "first": torch.randn(5, SMALL), "second": torch.randn(5, SMALL)
    }  # fmt: skip
    captured, roles = capture_with_roles(Layers(reader).eval(), ["context"], None, rows)
    plan = interpret(captured, roles, N, FULL)
    result = verify(captured, ranker := build(captured, roles, plan), 1, numbers(ranker.interface, (1, 300)))
    assert result.identical, result.agreement.reasons()
    return plan


@pytest.mark.parametrize("reader", READERS)
def test_scores_are_those_of_the_model(reader: Callable[[Layers, Tensor, Tensor, Tensor], Tensor]) -> None:
    planned(reader)


@pytest.mark.parametrize("reader", [shared, residual])
def test_the_head_meets_the_shared_layer_once(reader: Callable[[Layers, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Head times layer once, times a map for each target: no map meets the layer itself."""
    products = [cost.multiply_adds(expr, N) for expr in planned(reader).exprs if expr.stage.name == "CONTEXT"]
    assert products.count(HEAD * WIDTH * WIDTH) == 1
    assert WIDTH * WIDTH * SMALL not in products


def test_layers_that_differ_are_not_shared() -> None:
    products = [cost.multiply_adds(e, N) for e in planned(different_layers).exprs if e.stage.name == "CONTEXT"]
    assert products.count(WIDTH * WIDTH * SMALL) == 2
    assert HEAD * WIDTH * WIDTH not in products
