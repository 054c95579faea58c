"""Many requests in one call: each has the scores of a call of its own, however the rows are put together."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from tiny_zoo import tiny
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import rankopt
from rankopt.errors import InputError, StageError
from rankopt.ranker import Ranker
from rankopt.requests import Request, draw_request
from rankopt.zoo.fields import Field
from rankopt.zoo.registry import ENTRIES

FIELDS = tuple(Field(name, 30) for name in ("user", "item", "hour", "price"))
CONTEXT = ["features.user", "features.hour"]
LENGTHS = (4, 0, 1, 7)
NAMES = ("dnn", "fm", "dlrm", "dcnv2", "autoint", "mlcc", "masknet_serial", "xdeepfm", "rankmixer", "interhat")


@cache
def ranker_of(name: str) -> Ranker:
    torch.manual_seed(0)
    entry = ENTRIES[name]
    model = entry.build(FIELDS, tiny(entry.config)).double().eval()
    for table in model.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight)
    rows = {"features": {field.name: torch.randint(30, (20,)) for field in FIELDS}}
    return rankopt.optimize(model, CONTEXT, example_inputs=rows, verification=False)


def requests_of(ranker: Ranker, lengths: tuple[int, ...]) -> list[Request]:
    roles = ranker.interface.roles
    return [draw_request(roles, ranker.examples, n, torch.Generator().manual_seed(i)) for i, n in enumerate(lengths)]


def stacked(inputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in inputs]) for name in inputs[0]}


def joined(inputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([each[name] for each in inputs]) for name in inputs[0]}


def close(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.detach().abs().max().clamp_min(1e-3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_every_request_has_the_scores_of_its_own_call(name: str) -> None:
    ranker = ranker_of(name)
    requests = requests_of(ranker, LENGTHS)
    context, target = joined([dict(r.context) for r in requests]), joined([dict(r.target) for r in requests])
    expected = [ranker(r.context, r.target) for r in requests]
    with torch.no_grad():
        close(ranker.many(context, target, lengths=LENGTHS), torch.cat(expected))
        request_of = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
        order = torch.randperm(sum(LENGTHS), generator=torch.Generator().manual_seed(0))
        shuffled = {key: rows[order] for key, rows in target.items()}
        close(ranker.many(context, shuffled, request_of=request_of[order]), torch.cat(expected)[order])
        equal = requests_of(ranker, (5, 5, 5))
        scores = ranker.many(joined([dict(r.context) for r in equal]), stacked([dict(r.target) for r in equal]))
        close(scores, torch.stack([ranker(r.context, r.target) for r in equal]))


def test_requests_permuted_are_scores_permuted() -> None:
    ranker = ranker_of("dlrm")
    requests = requests_of(ranker, (6, 6, 6))
    context, target = joined([dict(r.context) for r in requests]), stacked([dict(r.target) for r in requests])
    order = [2, 0, 1]
    scores = ranker.many(context, target)
    close(ranker.many(*({k: x[order] for k, x in side.items()} for side in (context, target))), scores[order])


def test_one_request_and_none() -> None:
    ranker = ranker_of("dlrm")
    (request,) = requests_of(ranker, (3,))
    single = {name: rows.unsqueeze(0) for name, rows in request.target.items()}
    assert torch.equal(ranker.many(request.context, single)[0], ranker(request.context, request.target))
    nobody = {name: rows[:0] for name, rows in request.context.items()}
    nothing = {name: rows[:0] for name, rows in request.target.items()}
    assert ranker.many(nobody, nothing, lengths=[]).shape == (0,)
    assert ranker.many(request.context, nothing, lengths=[0]).shape == (0,)
    assert ranker.many(nobody, {name: rows[:0] for name, rows in single.items()}).shape == (0, 3)


def test_the_stages_apart() -> None:
    ranker = ranker_of("autoint")
    requests = requests_of(ranker, LENGTHS)
    context, target = joined([dict(r.context) for r in requests]), joined([dict(r.target) for r in requests])
    state = ranker.many.context_stage(context)
    assert {len(tensor) for tensor in state.values()} == {len(LENGTHS)}
    expected = ranker.many(context, target, lengths=LENGTHS)
    close(ranker.many.candidate_stage(state, target, lengths=LENGTHS), expected)
    with pytest.raises(StageError, match="not one of many requests"):
        ranker.many.candidate_stage(dict(list(state.items())[1:]), target, lengths=LENGTHS)


def test_an_op_that_mixes_rows_sees_one_request_at_a_time() -> None:
    class Cumulative(nn.Module):
        def forward(self, c: Tensor, t: Tensor) -> Tensor:
            return torch.cumsum(torch.relu(c + t), 0).sum(1)

    draw = torch.Generator().manual_seed(0)
    context, target = torch.randn(3, 2, generator=draw), torch.randn(6, 2, generator=draw)
    ranker = rankopt.optimize(Cumulative().eval(), {"c": context[:1]}, {"t": target})
    expected = [ranker({"c": context[i : i + 1]}, {"t": target[2 * i : 2 * i + 2]}) for i in range(3)]
    torch.testing.assert_close(ranker.many({"c": context}, {"t": target}, lengths=[2, 2, 2]), torch.cat(expected))
    dense = ranker.many({"c": context}, {"t": target.view(3, 2, 2)})
    torch.testing.assert_close(dense, torch.stack(expected))


def test_a_request_without_rows_is_not_run_where_rows_are_mixed() -> None:
    class Greatest(nn.Module):
        def forward(self, c: Tensor, t: Tensor) -> Tensor:
            return ((c + t) / t.amax(0, keepdim=True)).sum(1)  # which has no answer for no rows

    draw = torch.Generator().manual_seed(0)
    context, target = torch.randn(3, 2, generator=draw), torch.randn(6, 2, generator=draw)
    ranker = rankopt.optimize(Greatest().eval(), {"c": context[:1]}, {"t": target})
    expected = [ranker({"c": context[i : i + 1]}, {"t": target[rows]}) for i, rows in ((0, [0, 1, 2, 3]), (2, [4, 5]))]
    torch.testing.assert_close(ranker.many({"c": context}, {"t": target}, lengths=[4, 0, 2]), torch.cat(expected))
    assert ranker.many({"c": context}, {"t": target[:0]}, lengths=[0, 0, 0]).shape == (0,)


@pytest.mark.parametrize("first", [True, False])
def test_a_matrix_that_the_model_repeats_is_multiplied_once_per_request(first: bool) -> None:
    class Repeating(nn.Module):
        def forward(self, matrix: Tensor, rows: Tensor) -> Tensor:
            matrix = torch.tanh(matrix)
            return torch.relu(matrix @ rows if first else rows.transpose(1, 2) @ matrix).flatten(1).sum(1)

    draw = torch.Generator().manual_seed(0)
    shape = (6, 8) if first else (8, 6)
    context = torch.randn(3, *shape, generator=draw).double()
    target = torch.randn(6, 8, 5, generator=draw).double()
    ranker = rankopt.optimize(Repeating().eval(), {"matrix": context[:1]}, {"rows": target}, candidates=100_000)
    parts = target.split([3, 1, 2])
    single = [ranker({"matrix": context[i : i + 1]}, {"rows": part}) for i, part in enumerate(parts)]
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    request_of = torch.tensor([0, 0, 0, 1, 2, 2])[order]
    with torch.no_grad():
        found = ranker.many({"matrix": context}, {"rows": target[order]}, request_of=request_of)
        close(found, torch.cat(single)[order])
        dense = ranker.many({"matrix": context}, {"rows": target.unflatten(0, (3, 2))})
    apart = [ranker({"matrix": context[i : i + 1]}, {"rows": target[2 * i : 2 * i + 2]}) for i in range(3)]
    close(dense, torch.stack(apart))
    ragged = ranker.many.plan.many.ragged
    assert not isinstance(ragged, str)
    products = [n for n in ragged.functional.graph.nodes if n.target in (torch.ops.aten.bmm.default,)]
    assert len(products) == 1
    assert "expand" not in ragged.functional.code


def test_a_state_that_is_added_to_a_product_needs_no_padding() -> None:
    ragged = ranker_of("dnn").many.plan.many.ragged
    assert not isinstance(ragged, str)
    assert not ragged.pads


def test_gradients_reach_the_original_parameters() -> None:
    ranker = ranker_of("dcnv2")
    requests = requests_of(ranker, (3, 2))
    parameters = list(ranker.parameters())
    each = torch.cat([ranker(r.context, r.target) for r in requests]).square().sum()
    apart = torch.autograd.grad(each, parameters, allow_unused=True)
    context, target = joined([dict(r.context) for r in requests]), joined([dict(r.target) for r in requests])
    at_once = ranker.many(context, target, lengths=(3, 2)).square().sum()
    for one, other in zip(apart, torch.autograd.grad(at_once, parameters, allow_unused=True), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"request_of": [0, 1, 2, 4]}, "names request 4"),
        ({"request_of": [0, -1, 0, 0]}, "names request -1"),
        ({"request_of": [0, 1]}, "2 numbers, but there are 4 rows"),
        ({"request_of": [0.0, 1.0, 1.0, 1.0]}, "expected integers"),
        ({"lengths": [1, 1, 1]}, "add up to 3"),
        ({"lengths": [2, 2]}, "3 requests, the target of 2"),
        ({"lengths": [2, 1, 1], "request_of": [0, 0, 1, 2]}, "one of them"),
        ({}, r"expected \[B, N\]"),
    ],
)
def test_rows_that_belong_to_no_request(index: dict[str, list[int]], message: str) -> None:
    ranker = ranker_of("dnn")
    requests = requests_of(ranker, (2, 1, 1))
    context, target = joined([dict(r.context) for r in requests]), joined([dict(r.target) for r in requests])
    with pytest.raises(InputError, match=message):
        ranker.many(context, target, **index)


@pytest.mark.parametrize("name", ["dnn", "dlrm", "autoint", "xdeepfm"])
def test_flops_are_those_of_a_call_for_each_request(name: str) -> None:
    """once * B + each * R: nothing of a request is done for a row, and nothing of a row twice."""
    ranker = ranker_of(name)
    requests = requests_of(ranker, (4, 4, 4))
    context = joined([dict(r.context) for r in requests])
    rows = joined([dict(r.target) for r in requests])

    def flops(call: Callable[[], object]) -> int:
        # torch does not count products that are added to in place
        in_place = {torch.ops.aten.baddbmm_: lambda _, one, other, **__: 2 * math.prod(one) * other[-1]}
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
            call()
        return counter.get_total_flops()

    single = flops(lambda: ranker(requests[0].context, requests[0].target))
    assert flops(lambda: ranker.many(context, {n: x.unflatten(0, (3, 4)) for n, x in rows.items()})) == 3 * single
    assert flops(lambda: ranker.many(context, rows, lengths=(4, 4, 4))) == 3 * single


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_rows_of_one_request(dtype: torch.dtype) -> None:
    ranker = ranker_of("dnn")
    (request,) = requests_of(ranker, (3,))
    expected = ranker(request.context, request.target)
    given = {"lengths": torch.tensor([3], dtype=dtype), "request_of": torch.zeros(3, dtype=dtype)}
    for name, index in given.items():
        assert torch.equal(ranker.many(request.context, request.target, **{name: index}), expected)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"request_of": [0, -1, 0]}, "names request -1"),
        ({"request_of": [0, 1, 0]}, "names request 1"),
        ({"request_of": [0, 0]}, "2 numbers, but there are 3 rows"),
        ({"lengths": [2]}, "add up to 2"),
        ({"lengths": [2, 1]}, "1 requests, the target of 2"),
        ({"lengths": [3], "request_of": [0, 0, 0]}, "one of them"),
    ],
)
def test_rows_that_are_not_of_the_one_request(index: dict[str, list[int]], message: str) -> None:
    ranker = ranker_of("dnn")
    (request,) = requests_of(ranker, (3,))
    with pytest.raises(InputError, match=message):
        ranker.many(request.context, request.target, **{name: torch.tensor(found) for name, found in index.items()})
