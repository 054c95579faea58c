"""Axes, dims and places: the names by which deferred values know their elements."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from rankopt import dims, structure
from rankopt.axes import ROW, AxisFactory, Rows, elements, group_size, volume
from rankopt.expressions import Expr, Leaf, Stage, reachable
from rankopt.materialise import to_tensor
from rankopt.operands import Operand, arrange, expand, merge_axes, pick
from rankopt.plan import FULL
from rankopt.program import Program, aten, broadcast_shape
from rankopt.rules import Refusal
from rankopt.values import Cat, Part, Value, freshen, leaf
from rankopt.workspace import Workspace

ROWS = 3


@pytest.fixture
def w() -> Workspace:
    return Workspace(64, FULL)


def evaluate(w: Workspace, expr: Expr, inputs: dict[str, Tensor]) -> Tensor:
    """The value of an expression, computed call by call."""
    env: dict[int, object] = {}

    def plug(item: object) -> object:
        if isinstance(item, Expr):
            return env[item.serial]
        return [plug(each) for each in item] if isinstance(item, list | tuple) else item

    for e in reachable([expr]):
        if isinstance(e.target, Leaf):
            env[e.serial] = (w.program.constants if e.target is Leaf.CONSTANT else inputs)[e.args[0]]
        else:
            env[e.serial] = e.target(*(plug(a) for a in e.args), **{k: plug(a) for k, a in e.kwargs.items()})
    return env[expr.serial]  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------------ axes


def test_sizes_of_groups() -> None:
    a, b = AxisFactory().like([AxisFactory().fresh(4), AxisFactory().fresh(3)])
    assert group_size(()) == 1
    assert group_size((a, b)) == 12
    assert group_size((a, ROW)) == Rows(4)
    assert volume((a, ROW), 5) == 20
    assert elements((Rows(2), 3), 5) == 30


def test_the_row_axis_is_itself_and_no_other() -> None:
    factory = AxisFactory()
    assert factory.like([ROW]) == (ROW,)
    assert factory.fresh(0) != ROW
    assert repr(ROW) == "ROW"
    assert repr(Rows(2)) == "2*N"


# ------------------------------------------------------------------------------------------------------ program


def test_the_same_call_is_the_same_expression() -> None:
    p = Program()
    x = p.input("x", (Rows(), 4), torch.float32, Stage.CANDIDATE)
    assert p.scale(x, 2.0) is p.scale(x, 2.0)
    assert p.scale(x, 0.0) is not p.scale(x, -0.0)
    assert p.pointwise(aten.add.Scalar, x, 1) is not p.pointwise(aten.add.Scalar, x, 1.0)
    assert p.pointwise(aten.add.Scalar, x, 1) is not p.pointwise(aten.add.Scalar, x, True)
    assert p.constant(torch.tensor([1, 2])) is p.constant(np.array([1, 2]))
    assert p.constant(torch.tensor([1])) is not p.constant(torch.tensor(1))


def test_a_stage_is_the_latest_of_the_operands() -> None:
    p = Program()
    c = p.input("c", (1, 4), torch.float32, Stage.CONTEXT)
    t = p.input("t", (Rows(), 4), torch.float32, Stage.CANDIDATE)
    weight = p.weight("w", torch.zeros(4))
    assert p.mul(weight, weight).stage is Stage.WEIGHT
    assert p.mul(weight, c).stage is Stage.CONTEXT
    assert p.mul(c, t).stage is Stage.CANDIDATE
    assert p.mul(c, t).inputs == {"c", "t"}
    assert p.row_count().stage is Stage.CANDIDATE


def test_permutations_and_views_compose() -> None:
    p = Program()
    x = p.input("x", (Rows(), 4, 3), torch.float32, Stage.CANDIDATE)
    for first, second in product([(1, 2, 0), (2, 0, 1), (0, 2, 1)], repeat=2):
        once = p.permute(p.permute(x, first), second)
        assert once.dims == tuple(x.dims[first[d]] for d in second)
        assert once is x or once.args[0] is x
    from_the_back = p.call(aten.permute.default, x, [-1, 0, 1], shape=(3, Rows(), 4), out=x.dtype)
    assert p.permute(from_the_back, [1, 2, 0]) is x
    assert p.view(p.view(x, (Rows(), 12)), (Rows(), 4, 3)) is x
    assert p.index_select(x, 1, np.arange(4)) is x
    assert p.index_select(x, 1, np.arange(1, 3)).target is aten.slice.Tensor


def test_shapes_broadcast_with_rows() -> None:
    assert broadcast_shape([(Rows(), 1, 4), (3, 1)]) == (Rows(), 3, 4)
    assert broadcast_shape([(), (Rows(2),)]) == (Rows(2),)


# ------------------------------------------------------------------------------------------------------ operands


def test_merged_axes_hold_every_axis_once() -> None:
    factory = AxisFactory()
    a, b, c = (factory.fresh(size) for size in (2, 3, 4))
    groups = [(a, b), (ROW, b), (c, b), (b,), (ROW, c, a)]
    for x, y in product(groups, repeat=2):
        merged = merge_axes([x, y])
        assert set(merged) == {*x, *y}
        assert len(merged) == len(set(merged))
    assert merge_axes([(a, b), (ROW, b)]) == (ROW, a, b)


def test_arranged_and_expanded_operands(w: Workspace) -> None:
    a, b = w.axes.fresh(2), w.axes.fresh(4)
    x = torch.randn(4, ROWS)
    operand = Operand(w.program.input("x", (4, Rows()), x.dtype, Stage.CANDIDATE), (b, ROW))
    moved = evaluate(w, arrange(w, operand, (a, ROW, b)), {"x": x})
    assert torch.equal(moved, x.T)
    full = evaluate(w, expand(w, operand, (ROW, a, b)), {"x": x})
    assert torch.equal(full, x.T[:, None].expand(-1, 2, -1))


@pytest.mark.parametrize("index", [[[0, 5], [3, 3]], [[5, 4], [1, 0]]])
def test_picked_places(w: Workspace, index: list[list[int]]) -> None:
    """Places of two axes at once, in whatever order they lie in memory."""
    a, b = w.axes.fresh(2), w.axes.fresh(3)
    new = (w.axes.fresh(2), w.axes.fresh(2))
    x = torch.randn(3, ROWS, 2)
    operand = Operand(w.program.input("x", (3, Rows(), 2), x.dtype, Stage.CANDIDATE), (b, ROW, a))
    found = pick(w, operand, (a, b), np.array(index), new)
    value = evaluate(w, arrange(w, found, (ROW, *new)), {"x": x})
    assert torch.equal(value, x.permute(1, 2, 0).reshape(ROWS, 6)[:, torch.tensor(index)])


# ------------------------------------------------------------------------------------------------------ values


def mixed(w: Workspace) -> tuple[Value, dict[str, Tensor], Tensor]:
    """[N, 5] of which places 0, 2, 4 are context and 1, 3 target; its inputs, and its rows."""
    axis, c_axis, t_axis = w.axes.fresh(5), w.axes.fresh(3), w.axes.fresh(2)
    c = Operand(w.program.input("c", (3,), torch.float32, Stage.CONTEXT), (c_axis,))
    t = Operand(w.program.input("t", (Rows(), 2), torch.float32, Stage.CANDIDATE), (ROW, t_axis))
    parts = (Part(np.array([4, 0, 2]), (c_axis,), leaf(c)), Part(np.array([1, 3]), (t_axis,), leaf(t)))
    inputs = {"c": torch.randn(3), "t": torch.randn(ROWS, 2)}
    rows = torch.empty(ROWS, 5)
    rows[:, [4, 0, 2]], rows[:, [1, 3]] = inputs["c"].expand(ROWS, -1), inputs["t"]
    return Value(((ROW,), (axis,)), Cat(axis, parts)), inputs, rows


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 0], [3], [1, 3, 1], [0, 2, 4, 1]])
def test_a_pick_of_a_cat(w: Workspace, places: list[int]) -> None:
    value, inputs, rows = mixed(w)
    new = w.axes.fresh(len(places))
    node = structure.pick(w, value.node, value.groups[1], np.array(places), (new,))
    found = evaluate(w, to_tensor(w, Value(((ROW,), (new,)), node)), inputs)
    assert torch.equal(found, rows[:, places])
    if set(places) <= {0, 2, 4}:
        assert not node.has_rows


def test_a_view_regroups_and_comes_back(w: Workspace) -> None:
    x = torch.randn(ROWS, 4, 6)
    value = dims.from_tensor(w, w.program.input("x", (Rows(), 4, 6), x.dtype, Stage.CANDIDATE))
    for shape in ([Rows(), 8, 3], [Rows(4), 2, 3], [-1, 24], [Rows(24)], [1, Rows(2), 12], [Rows(), 3, -1]):
        sizes = [size.times * ROWS if isinstance(size, Rows) else size for size in shape]
        there = dims.view(w, value, shape)
        assert torch.equal(evaluate(w, to_tensor(w, there), {"x": x}), x.reshape(sizes))
        back = dims.view(w, there, [Rows(), 4, 6])
        assert torch.equal(evaluate(w, to_tensor(w, back), {"x": x}), x)


@pytest.mark.parametrize("shape", [[2, Rows(12)], [3, Rows(8)], [Rows(), 5, -1]])
def test_a_view_that_cuts_rows_is_refused(w: Workspace, shape: list[int | Rows]) -> None:
    value = dims.from_tensor(w, w.program.input("x", (Rows(), 4, 6), torch.float32, Stage.CANDIDATE))
    with pytest.raises(Refusal, match=r"rows are cut|does not cover"):
        dims.view(w, value, shape)


def test_dims_agree_however_they_are_factored(w: Workspace) -> None:
    factors = [(12,), (3, 4), (4, 3), (4, 3), (2, 6), (6, 2), (2, 3, 2)]
    for order in (factors, factors[::-1], factors[3:] + factors[:3]):
        axes = [tuple(w.axes.fresh(size) for size in sizes) for sizes in order]
        tensors = [w.program.weight(f"w{i}_{len(axes)}", torch.zeros(sizes)) for i, sizes in enumerate(order)]
        values = [Value((own,), leaf(Operand(t, own))) for own, t in zip(axes, tensors, strict=True)]
        agreed, (group,) = dims.agree(w, values)
        assert {tuple(axis.size for axis in value.groups[0]) for value in agreed} == {tuple(a.size for a in group)}


def test_fresh_copies_share_no_axis(w: Workspace) -> None:
    value, inputs, rows = mixed(w)
    copy = freshen(w, value)
    assert not {axis for axis in copy.axes if axis is not ROW} & set(value.axes)
    assert torch.equal(evaluate(w, to_tensor(w, copy), inputs), rows)


def test_rows_meet_rows_once(w: Workspace) -> None:
    """[N, 1] and [1, N] are a square, which no value is."""
    x = w.program.input("x", (Rows(),), torch.float32, Stage.CANDIDATE)
    value = dims.from_tensor(w, x)
    column, line = Value(((ROW,), ()), value.node), Value(((), (ROW,)), value.node)
    with pytest.raises(Refusal, match="every row meets every other row"):
        dims.unify(w, [column, line])
