"""The rewritten zoo gives the scores of the original: at any number of candidates, as served and in float64.

Eager torch, `torch.compile` and ONNX Runtime (at its default optimisation level) run the same rewritten graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.agreement import compare
from rankopt.float64 import run_float64
from rankopt.plan import alternatives
from rankopt.ranker import Ranker
from rankopt.requests import Request, tile
from rankopt.verify import placeholders
from rankopt.zoo.fields import Field
from rankopt.zoo.registry import ENTRIES

CONTEXT = ("user", "hour", "place", "device", "age")
TARGET = ("item", "shop", "price")
ORDER = ("user", "item", "hour", "place", "shop", "device", "age", "price")
IDS = 50
MODELS = ("dlrm", "dcnv2", "dcnv2_lowrank", "dcnv2_mix", "autoint", "mlcc", "mc_mlcc")


@dataclass(frozen=True)
class Case:
    model: nn.Module
    ranker: Ranker

    def request(self, candidates: int) -> Request:
        draw = torch.Generator().manual_seed(candidates)
        context = {f"features.{name}": torch.randint(0, IDS, (1,), generator=draw) for name in CONTEXT}
        target = {f"features.{name}": torch.randint(0, IDS, (candidates,), generator=draw) for name in TARGET}
        return Request(context, target)

    def rows(self, request: Request) -> dict[str, Tensor]:
        rows = tile(self.ranker.interface.roles, request)
        return {name.removeprefix("features."): ids for name, ids in rows.items()}


@cache
def case(name: str) -> Case:
    torch.manual_seed(0)
    entry = ENTRIES[name]
    config = replace(entry.config, rank=8) if name in ("dcnv2_lowrank", "dcnv2_mix") else entry.config
    model = entry.build([Field(field, IDS) for field in ORDER], config).eval()
    for table in model.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight, std=0.5)
    rows = {"features": {name: torch.randint(0, IDS, (20,)) for name in ORDER}}
    context = [f"features.{name}" for name in CONTEXT]
    return Case(model, rankopt.optimize(model, context, example_inputs=rows, candidates=512))


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_the_original(name: str) -> None:
    given = case(name)
    captured = given.ranker.origin[0]
    agreements = []
    for candidates in (1, 2, 77, 512, 5000):
        request = given.request(candidates)
        rows = tile(given.ranker.interface.roles, request)
        with torch.no_grad():
            original = given.model(given.rows(request))
            rewritten = given.ranker(request.context, request.target)
        truth = run_float64(captured.graph_module, placeholders(captured, rows))
        wide = run_float64(given.ranker.stages.whole, given.ranker.arguments(request))
        agreements.append(compare(truth, original, rewritten, wide))
        assert agreements[-1].order.top100 == 1.0
    joined = agreements[0].over(agreements)
    assert joined.error64 is not None
    assert joined.error64 <= 1e-9
    assert joined.identical(), joined.reasons()
    assert given.ranker({**given.request(1).context}, given.request(0).target).shape == (0,)


@pytest.mark.parametrize("name", MODELS)
def test_every_plan_gives_the_same_scores(name: str) -> None:
    """Also those that are not chosen, and the one whose products are laid out anew."""
    given = case(name)
    captured = given.ranker.origin[0]
    request = given.request(33)
    with torch.no_grad():
        expected = given.model(given.rows(request))
        for plan in alternatives(captured, given.ranker.interface.roles, 300):
            ranker = rankopt.pipeline.build(captured, given.ranker.interface.roles, plan)
            torch.testing.assert_close(
                ranker(request.context, request.target), expected, rtol=1e-4, atol=1e-5, msg=plan.policy.name
            )


@pytest.mark.parametrize("name", ["dlrm", "mlcc"])
def test_gradients_reach_the_original_parameters(name: str) -> None:
    given = case(name)
    model, ranker = given.model, given.ranker
    request = given.request(9)
    model.double()
    try:
        ranker(request.context, request.target).sum().backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        model(given.rows(request)).sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12, msg=name)
    finally:
        model.zero_grad()
        model.float()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["dlrm", "autoint"])
def test_compiled(name: str) -> None:
    given = case(name)
    compiled = torch.compile(given.ranker, dynamic=True)
    for candidates in (3, 64, 500):
        request = given.request(candidates)
        with torch.no_grad():
            expected = given.model(given.rows(request))
            torch.testing.assert_close(compiled(request.context, request.target), expected, rtol=1e-4, atol=1e-5)


class Flat(nn.Module):
    """A ranker as a function of flat tensors, for export."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.stages = ranker.stages
        self.weights = nn.ParameterList(tensor.clone() for tensor in ranker.prepared() if tensor.is_floating_point())
        self.places = [tensor for tensor in ranker.prepared() if not tensor.is_floating_point()]
        self.is_weight = [tensor.is_floating_point() for tensor in ranker.prepared()]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        weights, places = iter(self.weights), iter(self.places)
        prepared = [next(weights) if is_weight else next(places) for is_weight in self.is_weight]
        cut = len(self.stages.context_inputs)
        state = self.stages.context_stage(*(prepared[i] for i in self.stages.context_weights), *inputs[:cut])
        candidates = (prepared[i] for i in self.stages.candidate_weights)
        return self.stages.candidate_stage(*candidates, *state, *inputs[cut:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["dlrm", "dcnv2", "autoint", "mlcc"])
def test_onnx_runtime(name: str, tmp_path: object) -> None:
    ort = pytest.importorskip("onnxruntime")
    given = case(name)
    stages = given.ranker.stages
    names = [*stages.context_inputs, *stages.target_inputs]
    request = given.request(16)
    everything = {**request.context, **request.target}
    rows = torch.export.Dim("rows", min=1, max=1 << 20)
    shapes = (tuple({0: rows} if name in request.target else None for name in names),)
    path = f"{tmp_path}/model.onnx"
    torch.onnx.export(
        Flat(given.ranker).eval(), tuple(everything[name] for name in names), path,
        dynamo=True, dynamic_shapes=shapes, verbose=False, external_data=False,
    )  # fmt: skip
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for candidates in (1, 2, 37, 1000, 5000):
        request = given.request(candidates)
        everything = {**request.context, **request.target}
        feed = {item.name: everything[name].numpy() for item, name in zip(session.get_inputs(), names, strict=True)}
        with torch.no_grad():
            expected = given.model(given.rows(request))
        torch.testing.assert_close(torch.from_numpy(session.run(None, feed)[0]), expected, rtol=1e-4, atol=1e-5)
