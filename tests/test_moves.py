"""A model that is left unchanged: its moves are made in fewer calls, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankopt.axes import Rows, Shape
from rankopt.backends import EAGER, ONNX_RUNTIME
from rankopt.expressions import Expr, Leaf, Stage
from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import DENSE, UNCHANGED, interpret
from rankopt.prices import Profile
from rankopt.program import Program, aten
from rankopt.verify import numbers, verify
from rankopt.workspace import Policy

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


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([x[:, 1:2].exp(), x[:, 3:5].tanh()], 1)[:, 1:3].sum(1, keepdim=True),
        lambda x: torch.cat([x[:, 1:2].exp(), x[:, 3:5].tanh()], 1)[:, 2:3],
        lambda x: torch.cat([torch.cat([x[:, 1:2], x[:, 2:3].exp()], 1).sin(), x[:, 3:4]], -1)[:, 2:3],
    ],
)
def test_a_cut_of_one_part_is_cut_from_that_part(function: Callable[[Tensor], Tensor]) -> None:
    assert "cat" not in unchanged(lambda x: function(x) + x[:, 2:3])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([x[:, 1:2].exp(), x[:, 2:4].tanh()], 1)[:, 0:2].sum(1),  # of two parts
        lambda x: torch.cat([x[:, 1:2].exp(), x[:, 2:3].double()], 1)[:, 0],  # promoted
    ],
)
def test_other_cuts_of_a_concatenation_stay(function: Callable[[Tensor], Tensor]) -> None:
    assert "cat" in unchanged(function)


def test_new_zeros_read_nothing_and_add_nothing() -> None:
    calls = unchanged(lambda x: x[:, 0:3].new_zeros(x.shape[0], 1) + x[:, 0:1])
    assert not {"index_select", "cat", "new_zeros", "add"} & set(calls)
    kept = unchanged(lambda x: x[:, 0:3].new_ones(x.shape[0], 1) + x[:, 0:1])
    assert {"new_ones", "add"} <= set(kept)
    assert "index_select" not in kept


def test_zeros_that_broadcast_or_promote_are_added() -> None:
    assert "add" in unchanged(lambda x: x.new_zeros(x.shape[0], 2) + x[:, 0:1])
    assert "add" in unchanged(lambda x: x.new_zeros(x.shape[0], 1, dtype=torch.float64) + x[:, 0:1])


def test_places_of_a_slice_that_counts_from_the_back_are_its_own() -> None:
    program = Program()
    x = program.input("x", (Rows(), 6), torch.float32, Stage.CANDIDATE)
    behind = program.call(aten.slice.Tensor, x, 1, -4, 6, shape=(Rows(), 4), out=x.dtype)
    source, places = program.places(behind, 1)
    assert source is behind
    assert list(places) == [0, 1, 2, 3]
    ahead = program.call(aten.slice.Tensor, x, 1, 2, 6, shape=(Rows(), 4), out=x.dtype)
    source, places = program.places(ahead, 1)
    assert source is x
    assert list(places) == [2, 3, 4, 5]


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


MIXING = torch.arange(36.0).sin().reshape(6, 6) / 6


def normalised(dims: int, last: int = 1) -> Callable[[Tensor], Tensor]:
    """Layer norm of a sum [N, 3, 2] or [N, 1, 3, 2], over its last dim or its last two."""

    def function(x: Tensor) -> Tensor:
        shape = {3: (-1, 3, 2), 4: (-1, 1, 3, 2)}[dims]
        mixed = x @ MIXING
        total = mixed.exp().reshape(shape) + mixed.tanh().reshape(shape)
        return nn.functional.layer_norm(total, shape[-last:]).reshape(-1, 6)

    return function


def norm_of(function: Callable[[Tensor], Tensor], profile: Profile, policy: Policy) -> Expr:
    """The only layer norm of a model: see `only`."""
    return only(aten.layer_norm.default, function, profile, policy)


def only(target: Any, function: Callable[[Tensor], Tensor], profile: Profile, policy: Policy) -> Expr:
    """The only call of `target` in a model over packed rows [N, 6]; its scores are checked."""
    captured, roles = capture_with_roles(Function(function).eval(), CONTEXT, None, (ROWS,))
    plan = interpret(captured, roles, 8, policy, profile=profile)
    ranker = build(captured, roles, plan)
    result = verify(captured, ranker, 1, numbers(ranker.interface, (1, 7)), plans=[plan])
    assert result.identical, result.agreement.reasons()
    (found,) = (expr for expr in plan.exprs if expr.target is target)
    return found


@pytest.mark.parametrize("policy", [UNCHANGED, DENSE])
def test_a_sum_and_its_norm_stay_apart_where_they_would_be_one_slow_call(policy: Policy) -> None:
    assert norm_of(normalised(3), ONNX_RUNTIME, policy).shape == (Rows(3), 2)
    assert norm_of(normalised(3), EAGER, policy).shape == (Rows(), 3, 2)


def test_a_batched_product_that_ends_with_a_sum_is_one_too() -> None:
    def attended(x: Tensor) -> Tensor:
        keys = (x @ MIXING).reshape(-1, 3, 2).tanh()
        return nn.functional.layer_norm(torch.baddbmm(keys, keys @ keys.mT, keys), (2,)).reshape(-1, 6)

    assert norm_of(attended, ONNX_RUNTIME, UNCHANGED).shape == (Rows(3), 2)
    assert norm_of(attended, EAGER, UNCHANGED).shape == (Rows(), 3, 2)


def test_a_norm_that_stays_one_call_of_its_own_is_left_as_it_is() -> None:
    assert norm_of(normalised(4), ONNX_RUNTIME, UNCHANGED).shape == (Rows(), 1, 3, 2)
    assert norm_of(normalised(3, last=2), ONNX_RUNTIME, UNCHANGED).shape == (Rows(), 3, 2)
    product = norm_of(
        lambda x: nn.functional.layer_norm(x.exp().view(-1, 3, 2), (2,)).reshape(-1, 6), ONNX_RUNTIME, UNCHANGED
    )
    assert product.shape == (Rows(), 3, 2)


@pytest.mark.parametrize(("profile", "shape"), [(ONNX_RUNTIME, (Rows(3), 4)), (EAGER, (Rows(), 3, 4))])
def test_a_layer_with_a_bias_is_over_two_dims_where_that_is_quicker(profile: Profile, shape: Shape) -> None:
    weight, bias = MIXING[:4, :2], MIXING[0, :4]

    def layer(x: Tensor) -> Tensor:
        return nn.functional.linear(x.exp().reshape(-1, 3, 2), weight, bias).relu().sum(1)

    assert only(aten.linear.default, layer, profile, UNCHANGED).shape == shape


MATRIX = torch.arange(24.0).reshape(4, 6).sin()


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        pytest.param(lambda x: MATRIX @ x.unsqueeze(2), {"linear"}, id="a vector of each row"),
        pytest.param(lambda x: MATRIX[:, :3] @ x.view(-1, 2, 3, 1), {"linear"}, id="two vectors of each row"),
        pytest.param(lambda x: MATRIX[:, :3] @ x.view(-1, 3, 2), {"matmul"}, id="a matrix of each row"),
        pytest.param(lambda x: x.unsqueeze(1) @ MATRIX.t(), {"matmul"}, id="the matrix on the right"),
    ],
)
@pytest.mark.parametrize("profile", [EAGER, ONNX_RUNTIME], ids=lambda profile: profile.name)
def test_a_matrix_times_vectors_is_one_product(
    function: Callable[[Tensor], Tensor], calls: set[str], profile: Profile
) -> None:
    assert calls == set(unchanged(function, profile)) & {"linear", "matmul"}
