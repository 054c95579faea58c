"""Prices: what is dear in reality is dear in the estimate."""

from __future__ import annotations

import json
import operator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from programs import candidates
from small_ranker import Small, example_rows

from rankopt import plan
from rankopt.axes import Rows
from rankopt.backends import EAGER, INDUCTOR, ONNX_RUNTIME, PROFILES, profile_of
from rankopt.errors import FormatError, InputError
from rankopt.expressions import Expr, Stage
from rankopt.pipeline import capture_with_roles
from rankopt.plan import alternatives
from rankopt.prices import from_json, to_json
from rankopt.program import Program, aten
from rankopt.timing import time

N = 512


def _mm(program: Program, x: Expr, columns: int) -> Expr:
    weight = program.weight(f"w{columns}", torch.empty(int(str(x.dims[1])), columns))
    return program.call(aten.mm.default, x, weight, shape=(x.dims[0], columns), out=x.dtype)


def test_what_runs_once_per_model_is_free(program: Program) -> None:
    weight = program.weight("w", torch.empty(64, 64))
    assert time(program.scale(weight, 2.0), N) == 0.0


def test_a_narrow_product_costs_more_per_multiply_add(program: Program) -> None:
    x = candidates(program, 64)
    assert time(_mm(program, x, 8), N, EAGER) > 0.5 * time(_mm(program, x, 64), N, EAGER)


def test_vectors_of_a_batch_are_dear_on_the_right_in_eager_calls() -> None:
    for profile, dear in ((EAGER, 2.0), (INDUCTOR, 1.0)):
        assert profile.product(500, 26, 1, 16) >= dear * profile.product(500, 1, 26, 16)
    assert INDUCTOR.product(500, 26, 1, 16) == INDUCTOR.product(500, 1, 26, 16)


def test_a_vector_on_the_right_is_dear_where_it_is_packed(program: Program) -> None:
    x = candidates(program, 64)
    column = _mm(program, x, 1)
    weight = program.permute(column.args[1], [1, 0])
    row = program.call(aten.mm.default, weight, program.permute(x, [1, 0]), shape=(1, Rows()), out=x.dtype)
    apart = {profile.name: time(column, N, profile) - time(row, N, profile) for profile in PROFILES.values()}
    assert apart["onnxruntime"] > 0
    assert apart["eager"] == 0


def test_moving_the_innermost_dim_costs_more_than_moving_whole_runs(program: Program) -> None:
    x = candidates(program, 6, 2, 16)
    runs = program.view(program.permute(x, [0, 2, 1, 3]), (Rows(), 192))
    apart = program.view(program.permute(x, [0, 3, 2, 1]), (Rows(), 192))
    for profile in PROFILES.values():
        assert time(program.view(x, (Rows(), 192)), N, profile) == profile.view
        assert profile.view < time(runs, N, profile) < time(apart, N, profile)


def test_reading_a_permuted_tensor_elementwise_is_a_copy(program: Program) -> None:
    x, y = candidates(program, 4, 32), program.input("y", (Rows(), 32, 4), torch.float32, Stage.CANDIDATE)
    assert time(program.add(x, program.permute(y, [0, 2, 1])), N) > 2 * time(program.add(x, x), N)


def test_onnx_runtime_pays_for_repeating_along_short_runs(program: Program) -> None:
    x, scalar = candidates(program, 32, 8), program.input("s", (Rows(), 32, 1), torch.float32, Stage.CANDIDATE)
    dear = time(program.mul(x, scalar), N, ONNX_RUNTIME) / time(program.mul(x, x), N, ONNX_RUNTIME)
    assert dear > time(program.mul(x, scalar), N, EAGER) / time(program.mul(x, x), N, EAGER)


def _power(program: Program, x: Expr, exponent: float) -> Expr:
    return program.call(aten.pow.Tensor_Scalar, x, exponent, shape=x.dims, out=x.dtype)


def test_functions_are_not_equally_dear(program: Program) -> None:
    x = candidates(program, 64)
    sigmoid, tanh, softplus = (
        program.call(target, x, shape=x.dims, out=x.dtype)
        for target in (aten.sigmoid.default, aten.tanh.default, aten.softplus.default)
    )
    assert time(tanh, N, EAGER) > 3 * time(sigmoid, N, EAGER)
    assert time(tanh, N, ONNX_RUNTIME) < 1.5 * time(sigmoid, N, ONNX_RUNTIME)
    assert time(softplus, N, ONNX_RUNTIME) > 10 * time(sigmoid, N, ONNX_RUNTIME)


@pytest.mark.parametrize("exponent", [2, 2.0, 3])
def test_a_low_power_costs_what_a_product_does(exponent: float, program: Program) -> None:
    x = candidates(program, 64)
    for profile in PROFILES.values():
        assert time(_power(program, x, exponent), N, profile) == time(program.mul(x, x), N, profile)
        assert time(_power(program, x, 2.5), N, profile) > 2 * time(program.mul(x, x), N, profile)


def _reduced(program: Program, x: Expr, *dims: int, target: Any = aten.sum.dim_IntList) -> Expr:
    return program.reduce(target, x, dims)


def test_a_reduction_costs_by_its_runs(program: Program) -> None:
    """One of 120 neighbours is as fast as its elements are read; of as many in six runs it is not."""
    whole, apart = candidates(program, 6, 20), program.input("y", (6, Rows(), 20), torch.float32, Stage.CANDIDATE)
    for target in (aten.sum.dim_IntList, aten.amax.default):
        for profile in PROFILES.values():
            together = time(_reduced(program, whole, 1, 2, target=target), N, profile) - profile.call
            assert time(_reduced(program, apart, 0, 2, target=target), N, profile) - profile.call > 1.5 * together


def test_a_maximum_over_what_is_left_of_a_vector_is_dear(program: Program) -> None:
    some, all_ = candidates(program, 26), program.input("y", (Rows(), 32), torch.float32, Stage.CANDIDATE)
    assert time(_reduced(program, some, 1, target=aten.amax.default), N) > 1.5 * time(
        _reduced(program, all_, 1, target=aten.amax.default), N
    )


def _softmax(program: Program, dim: int, *sizes: int) -> Expr:
    x = candidates(program, *sizes)
    return program.call(aten.softmax.int, x, dim, shape=x.dims, out=x.dtype)


def test_a_softmax_before_a_ragged_dim_is_dear() -> None:
    for profile in (EAGER, ONNX_RUNTIME):
        last = time(_softmax(Program(), 2, 26, 26), N, profile)
        assert time(_softmax(Program(), 1, 26, 26), N, profile) > 1.2 * last
        assert time(_softmax(Program(), -1, 26, 26), N, profile) == last
    whole, ragged = _softmax(Program(), 1, 20, 32), _softmax(Program(), 1, 20, 31)
    assert time(ragged, N, EAGER) > 2 * time(whole, N, EAGER)


def test_a_softmax_over_few_neighbours_is_dear() -> None:
    few, many = _softmax(Program(), 2, 40, 8), _softmax(Program(), 2, 10, 32)
    assert time(few, N, EAGER) > 3 * time(many, N, EAGER)


def test_onnx_runtime_pays_for_each_block_of_a_sum_between(program: Program) -> None:
    x = candidates(program, 6, 16)
    for profile, dear in ((ONNX_RUNTIME, 2.0), (EAGER, 0.5)):
        between, first = time(_reduced(program, x, 1), N, profile), time(_reduced(program, x, 0), N, profile)
        assert between > dear * first


def test_a_stack_is_a_call_of_each_part_under_onnx_runtime(program: Program) -> None:
    parts = [program.scale(candidates(program, 16), factor) for factor in (2.0, 3.0, 4.0)]
    assert program.stack(parts, 1, joined=True).target is aten.reshape.default
    for profile, views in ((ONNX_RUNTIME, 3), (EAGER, 0)):
        apart, joined = time(program.stack(parts, 1), N, profile), time(program.cat(parts, 1), N, profile)
        assert apart == pytest.approx(joined + views * profile.view)


def test_onnx_runtime_pays_for_what_an_einsum_brings_into_its_order(program: Program) -> None:
    x = candidates(program, 26, 16)
    shape = (Rows(), 26, 26)
    pairs = program.call(aten.einsum.default, "nid,njd->nij", [x, x], shape=shape, out=x.dtype)
    alone = replace(ONNX_RUNTIME, threads=1)
    moved = N * (2 * 26 * 16 + 26 * 26)
    free = time(pairs, N, replace(alone, einsum=0.0))
    assert time(pairs, N, alone) - free == pytest.approx(ONNX_RUNTIME.einsum * moved)


def test_what_is_packed_at_each_call_costs_more_than_a_weight(program: Program) -> None:
    x = candidates(program, 64)
    rows = program.permute(x, [1, 0])
    square = program.weight("square", torch.empty(64, 64))
    right = program.call(aten.mm.default, square, rows, shape=(64, Rows()), out=x.dtype)
    left = program.call(aten.mm.default, x, square, shape=(Rows(), 64), out=x.dtype)
    assert time(right, N, ONNX_RUNTIME) > time(left, N, ONNX_RUNTIME)


def test_a_split_is_one_copy_under_onnx_runtime_and_its_parts_are_free(program: Program) -> None:
    x = candidates(program, 8)
    split = program.call(aten.split_with_sizes.default, x, [1] * 8, 1, shape=None, out=x.dtype)
    part = program.call(operator.getitem, split, 0, shape=(Rows(), 1), out=x.dtype)
    cut = program.index_select(x, 1, np.array([3]))
    for profile in (EAGER, ONNX_RUNTIME):
        assert time(part, N, profile) == 0
        assert time(split, N, profile) < 8 * time(cut, N, profile)


def test_onnx_runtime_pays_for_repeating_the_innermost_dim(program: Program) -> None:
    column, row = candidates(program, 1), program.input("c", (1, 32), torch.float32, Stage.CONTEXT)
    inner, outer = program.expand(column, (Rows(), 32)), program.expand(row, (Rows(), 32))
    assert time(inner, N, ONNX_RUNTIME) > 3 * time(outer, N, ONNX_RUNTIME)
    assert time(inner, N, EAGER) == time(outer, N, EAGER)


def test_threads_share_what_is_large(program: Program) -> None:
    x = candidates(program, 512)
    large, alone = _mm(program, x, 512), replace(EAGER, threads=1)
    assert time(large, N, EAGER) == pytest.approx(alone.call + (time(large, N, alone) - alone.call) / 2)
    assert time(large, 1, EAGER) == pytest.approx(time(large, 1, alone), rel=0.6)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_survives_json(profile: Any) -> None:
    assert from_json(json.loads(json.dumps(to_json(profile)))) == profile


@pytest.mark.parametrize("data", [None, [], {}, {"name": "eager"}])
def test_what_is_no_profile_is_refused(data: Any) -> None:
    with pytest.raises(FormatError, match="no profile of prices"):
        from_json(data)


def test_a_small_gain_is_not_worth_a_doubt() -> None:
    """A rewritten plan is chosen when it is cheaper than the unchanged one beyond what the estimate may be off."""
    captured, roles = capture_with_roles(Small().eval(), ["user_id"], None, example_rows())
    certain, doubtful = (alternatives(captured, roles, 5000, profile=replace(EAGER, doubt=d)) for d in (1.0, 1e6))
    assert certain[0].policy.rewrites
    assert not doubtful[0].policy.rewrites


def test_a_backend_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="expected: eager, inductor, onnxruntime"):
        profile_of("tensorrt")


def test_prices_are_for_as_many_threads_as_are_given() -> None:
    assert profile_of("onnxruntime", 4) == replace(ONNX_RUNTIME, threads=4)
    assert profile_of(EAGER, 1).threads == 1
    assert profile_of("eager") is EAGER
    for threads in (0, True, 1.5):
        with pytest.raises(InputError, match="fix: threads=1"):
            profile_of("eager", threads)  # type: ignore[arg-type]


def test_a_large_graph_is_interpreted_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large it is, it is rewritten, left unchanged and shared without algebra, and the cheapest kept."""
    captured, roles = capture_with_roles(Small().eval(), ["user_id"], None, example_rows())
    monkeypatch.setattr(plan, "EFFORT", 1)
    assert {tried.policy for tried in alternatives(captured, roles, N)} == {plan.FULL, plan.ONCE, plan.UNCHANGED}


def test_what_torch_compile_fuses_is_cheaper_than_its_calls(program: Program) -> None:
    x = candidates(program, 26, 16)
    moved = program.contiguous(program.permute(x, (0, 2, 1)))
    for fused in (_reduced(program, x, 1), moved, _softmax(Program(), 1, 26, 26)):
        assert time(fused, N, INDUCTOR) < 0.7 * time(fused, N, EAGER)
    product = _mm(Program(), candidates(Program(), 64), 64)
    assert time(product, N, INDUCTOR) > 0.7 * time(product, N, EAGER)
