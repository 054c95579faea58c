"""What a compiler computes inside the loop that reads it has no price of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from programs import candidates

from rankopt.backends import EAGER, INDUCTOR, ONNX_RUNTIME
from rankopt.expressions import Expr, Stage, reachable
from rankopt.fusion import inside_readers
from rankopt.program import Program, aten
from rankopt.timing import entry_time, time, total_time

N = 512


def _call(program: Program, target: Callable[..., object], x: Expr) -> Expr:
    return program.call(target, x, shape=x.dims, out=x.dtype)


def _relu(program: Program, x: Expr) -> Expr:
    return _call(program, aten.relu.default, x)


def _summed(program: Program, x: Expr) -> Expr:
    return program.reduce(aten.sum.dim_IntList, x, (1,))


def _product(program: Program, x: Expr) -> Expr:
    weight = program.weight("w", torch.empty(int(str(x.dims[1])), 8))
    return program.call(aten.mm.default, x, weight, shape=(x.dims[0], 8), out=x.dtype)


READERS = [
    pytest.param(_relu, True, id="elementwise"),
    pytest.param(_summed, True, id="a sum"),
    pytest.param(lambda p, x: p.cat([x, candidates(p, 16)], 1), True, id="a concatenation"),
    pytest.param(lambda p, x: _relu(p, p.permute(x, [1, 0])), True, id="elementwise, through a view"),
    pytest.param(_product, False, id="a product"),
    pytest.param(lambda p, x: p.add(_summed(p, x), _summed(p, _relu(p, x))), False, id="two readers"),
    pytest.param(lambda p, x: x, False, id="nobody: an output"),
]


@pytest.mark.parametrize(("read", "inside"), READERS)
def test_who_computes_an_elementwise_call_inside(
    read: Callable[[Program, Expr], Expr], inside: bool, program: Program
) -> None:
    activation = _call(program, aten.sigmoid.default, candidates(program, 16))
    result = read(program, activation)
    assert (activation.serial in inside_readers(reachable([result]))) is inside


def test_a_product_is_never_inside(program: Program) -> None:
    product = _product(program, candidates(program, 16))
    assert product.serial not in inside_readers(reachable([_relu(program, product)]))


def test_loops_cost_less_than_their_calls_where_they_are_compiled(program: Program) -> None:
    exprs = reachable([_summed(program, _relu(program, program.scale(candidates(program, 16), 2.0)))])
    for profile in (EAGER, ONNX_RUNTIME):
        assert total_time(exprs, N, profile) == pytest.approx(sum(time(expr, N, profile) for expr in exprs))
    own = sum(time(expr, N, INDUCTOR) for expr in exprs)
    assert total_time(exprs, N, INDUCTOR) < own - INDUCTOR.call + entry_time(exprs, INDUCTOR)


def test_a_function_costs_the_same_inside(program: Program) -> None:
    profile = replace(INDUCTOR, call=0.0)
    exponential = _call(program, aten.exp.default, candidates(program, 16))
    assert time(exponential, N, profile, inside=True) == time(exponential, N, profile)


def test_each_input_and_each_weight_is_looked_at(program: Program) -> None:
    few = [_product(program, candidates(program, 16))]
    more = [*few, program.input("c", (1, 8), torch.float32, Stage.CONTEXT)]
    joined = [program.add(*more)]
    difference = entry_time(reachable(joined), INDUCTOR) - entry_time(reachable(few), INDUCTOR)
    assert difference == INDUCTOR.tensor
    assert entry_time(reachable(joined), EAGER) == 0.0
