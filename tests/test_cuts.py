"""Columns of one tensor that are taken one by one: cast in one call and cut in one, with the same bits."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rankopt.axes import Rows
from rankopt.cuts import together
from rankopt.expressions import Expr, Stage
from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import FULL, UNCHANGED, interpret
from rankopt.program import Program, aten
from rankopt.verify import numbers, verify
from rankopt.workspace import Policy

COLUMNS = 8
ROWS = torch.arange(4.0 * COLUMNS).reshape(4, COLUMNS)
CONTEXT = ["x[:, :5]"]
TABLE = torch.arange(300.0).sin().reshape(100, 3)

Function = Callable[[Tensor], Tensor]


class Model(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def emitted(function: Function, policy: Policy = UNCHANGED, context: list[str] = CONTEXT) -> list[Expr]:
    """The program of a model over packed rows [N, 8] of ids; its scores are checked."""
    captured, roles = capture_with_roles(Model(function).eval(), context, None, (ROWS,))
    plan = interpret(captured, roles, 8, policy)
    ranker = build(captured, roles, plan)
    result = verify(captured, ranker, 1, numbers(ranker.interface, (1, 7)), plans=[plan])
    assert result.identical, result.agreement.reasons()
    for count in (1, 3):
        context_row, target = ROWS[:1, :5], ROWS[:count, 5:] + 1
        rows = torch.cat([context_row.expand(count, -1), target], 1)
        torch.testing.assert_close(ranker({"x": context_row}, {"x": target}), function(rows))
    return plan.exprs


def calls(exprs: list[Expr], target: object) -> list[Expr]:
    return [expr for expr in exprs if expr.target is target]


def casts(exprs: list[Expr]) -> list[Expr]:
    """As the model has them, and as the compiler makes them."""
    return [expr for expr in exprs if expr.target in (aten.to.dtype, aten._to_copy.default)]


def ids(columns: range, taken: Callable[[Tensor, int], Tensor] = lambda x, i: x[:, i : i + 1]) -> Function:
    """Embeddings of some columns, summed: each is cut, cast and looked up by itself."""

    def function(x: Tensor) -> Tensor:
        found = [nn.functional.embedding(taken(x, i).long() % 100, TABLE).flatten(1) for i in columns]
        return torch.stack(found).sum(0)

    return function


@pytest.mark.parametrize("policy", [UNCHANGED, FULL])
def test_ids_are_cast_together(policy: Policy) -> None:
    exprs = emitted(ids(range(COLUMNS)), policy)
    assert len(casts(exprs)) == 2  # of the context, and of the target


@pytest.mark.parametrize("policy", [UNCHANGED, FULL])
def test_selected_ids_are_cast_together(policy: Policy) -> None:
    exprs = emitted(ids(range(COLUMNS), taken=lambda x, i: x[:, i]), policy)
    assert len(casts(exprs)) == 2


def test_slices_become_parts_of_a_split() -> None:
    exprs = emitted(ids(range(COLUMNS)))
    (split,) = calls(exprs, aten.split_with_sizes.default)  # the target has three, too few
    assert split.args[1] == [1] * 5
    assert len(calls(exprs, operator.getitem)) == 5
    assert len(calls(exprs, aten.slice.Tensor)) == 3


def test_what_is_not_taken_is_a_part_of_its_own() -> None:
    def function(x: Tensor) -> Tensor:
        return x[:, 5:6] * x[:, 7:] + sum(x[:, i : i + 1] for i in (0, 1, 2, 4))

    (split,) = calls(emitted(function), aten.split_with_sizes.default)
    assert split.args[1] == [1, 1, 1, 1, 1]


def test_three_columns_are_cut_one_by_one() -> None:
    assert not calls(emitted(lambda x: x[:, 0:1] + x[:, 1:2] * x[:, 2:3] + x[:, 5:6]), aten.split_with_sizes.default)


def test_slices_that_overlap_are_cut_one_by_one() -> None:
    exprs = emitted(lambda x: sum((x[:, i : i + 2].sum(1) for i in range(4)), x[:, 5]))
    assert not calls(exprs, aten.split_with_sizes.default)


def test_a_few_ids_among_many_columns_are_cast_one_by_one() -> None:
    def function(x: Tensor) -> Tensor:
        return ids(range(2))(x) + x[:, 5:6]

    found = casts(emitted(function))
    assert [expr.dims[-1] for expr in found] == [1, 1]


def test_columns_that_are_cast_to_several_types_are_cast_to_each() -> None:
    def function(x: Tensor) -> Tensor:
        whole = ids(range(5))(x)
        return whole + sum(x[:, i : i + 1].double() for i in range(5)) + x[:, 5:6]

    dtypes = [expr.dtype for expr in casts(emitted(function))]
    assert sorted(map(str, dtypes)) == ["torch.float64", "torch.int64"]


def test_one_column_twice_counts_once() -> None:
    def function(x: Tensor) -> Tensor:
        first = x[:, 0:1]
        return ids(range(1))(x) + first.long() + first.double() + x[:, 5:6]

    assert sorted((str(expr.dtype), expr.dims[-1]) for expr in casts(emitted(function))) == [
        ("torch.float64", 1),
        ("torch.int64", 1),
    ]


def test_along_another_dim() -> None:
    def function(x: Tensor) -> Tensor:
        cube = x.reshape(-1, 2, 4).tanh()
        return cube[:, :, 0:1].sum(1) + cube[:, :, 1:2].sum(1) * cube[:, :, 2:3].sum(1) + cube[..., 3:].sum(1)

    (split,) = calls(emitted(function), aten.split_with_sizes.default)
    assert split.args[1:] == ([1, 1, 1, 1], 2)


def test_what_a_slice_leaves_out() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.tanh()
        whole, behind = torch.ops.aten.slice.Tensor(y), torch.ops.aten.slice.Tensor(y, 1, 5)
        return whole.sum(1) + behind.sum(1) * torch.ops.aten.slice.Tensor(x, 1, 6).sum(1) + y[:, 0:1].sum(1)

    emitted(function)


def test_rows_are_not_split() -> None:
    program = Program()
    x = program.input("x", (Rows(), 4), torch.float32, Stage.CANDIDATE)
    rows = [program.call(aten.slice.Tensor, x, 0, i, i + 1, shape=(1, 4), out=x.dtype) for i in range(4)]
    columns = [program.call(aten.slice.Tensor, x, 1, i, i + 1, shape=(Rows(), 1), out=x.dtype) for i in range(4)]
    assert together(program, rows) == rows
    assert [expr.target for expr in together(program, columns)] == [operator.getitem] * 4


Taken = tuple[int, int, torch.dtype | None]
"""The first column and the number of columns, none for a selected one, and what they are cast to."""


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.integers(0, COLUMNS - 1),
            st.integers(0, 3),
            st.sampled_from([None, torch.int64, torch.int32, torch.float64]),
        ),
        min_size=3,
        max_size=12,
    ),
    st.sampled_from([UNCHANGED, FULL]),
)
def test_any_columns_in_any_order(taken: list[Taken], policy: Policy) -> None:
    def function(x: Tensor) -> Tensor:
        total = x[:, COLUMNS - 1] * 1.0
        for place, (first, length, dtype) in enumerate(taken):
            part = x[:, first : first + length] if length else x[:, first]
            part = part if dtype is None else part.to(dtype)
            total = total + (place + 1) * (part.sum(1) if length else part)
        return total

    emitted(function, policy)
