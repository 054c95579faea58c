"""A model that is left unchanged: its moves are made in fewer calls, with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import UNCHANGED, interpret
from rankopt.prices import EAGER, ONNX_RUNTIME, Profile
from rankopt.program import Leaf
from rankopt.verify import numbers, verify

CONTEXT = ["x[:, 1]", "x[:, 3:5]"]
ROWS = torch.arange(24.0).reshape(4, 6) / 7


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def unchanged(function: Callable[[Tensor], Tensor], profile: Profile = EAGER) -> list[str]:
    """The calls that a model over packed rows [N, 6] makes if it is left as it is; its scores are checked."""
    captured, roles = capture_with_roles(Function(function).eval(), CONTEXT, None, (ROWS,))
    plan = interpret(captured, roles, 8, UNCHANGED, profile=profile)
    ranker = build(captured, roles, plan)
    result = verify(captured, ranker, 1, numbers(ranker.interface, (1, 7)), plans=[plan])
    assert result.identical, result.agreement.reasons()
    return [str(expr.target).split(".")[1] for expr in plan.exprs if not isinstance(expr.target, Leaf)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, 0:1] + x[:, 1:2] * x[:, 5:],
        lambda x: x[:, 0] + x[:, 3] * x[:, -1],
        lambda x: x[:, 3:5].tanh(),
        lambda x: x[:].select(-1, 2) + x[:, -1:][:, 0],
    ],
)
def test_columns_are_cut_from_where_they_came_from(function: Callable[[Tensor], Tensor]) -> None:
    assert "index_select" not in unchanged(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, 0:3].tanh(),  # target, context, target: they lie apart
        lambda x: x[:, ::2].tanh(),
        lambda x: x[1:].tanh().sum(0, keepdim=True) + x[:, :1],
    ],
)
def test_columns_that_lie_apart_are_gathered(function: Callable[[Tensor], Tensor]) -> None:
    assert "index_select" in unchanged(function)


def test_no_places_are_cut_as_the_model_does() -> None:
    unchanged(lambda x: torch.cat([x[:, 2:2], x[:, :1]], 1))


def stacked(dim: int) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        parts = [x[:, 0:2].exp(), x[:, 2:4].tanh(), x[:, 4:6].relu()]
        return torch.stack(parts, dim).movedim(dim, 1).reshape(-1, 6)

    return function


@pytest.mark.parametrize("dim", [1, -2])
def test_a_stack_is_a_concatenation_where_each_part_of_it_is_a_call(dim: int) -> None:
    calls = unchanged(stacked(dim), ONNX_RUNTIME)
    assert "stack" not in calls
    assert "cat" in calls
    assert "stack" in unchanged(stacked(dim))


@pytest.mark.parametrize("dim", [0, 2, -1])
def test_a_stack_along_rows_or_behind_the_last_dim_stays(dim: int) -> None:
    assert "stack" in unchanged(stacked(dim), ONNX_RUNTIME)


def test_a_stack_of_several_types_stays() -> None:
    def function(x: Tensor) -> Any:
        return torch.stack([x[:, 0:2], x[:, 2:4].double()], 1).sum(1)

    assert "stack" in unchanged(function, ONNX_RUNTIME)
