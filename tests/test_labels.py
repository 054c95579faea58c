"""Labels against the truth: change the target inputs, and see which elements of each intermediate change."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from rankopt.capture import CapturedModel, capture
from rankopt.labels import Rank, label_of, shared_mask
from rankopt.plan import FULL, POLICIES, Plan, interpret
from rankopt.selectors import InputRole, Role
from rankopt.values import Value
from rankopt.verify import placeholders
from rankopt.workspace import Policy
from rankopt.zoo.fields import Field, Schema
from rankopt.zoo.registry import ENTRIES

DRAWS = 4
"""Targets that each model is run on, with one and the same context."""

FIELDS = tuple(Field(name, 30) for name in ("user", "age", "hour", "item", "genre", "year"))
SCHEMA = Schema(FIELDS, context=("user", "hour", "year"), target=("age", "item", "genre"))


class Trace(fx.Interpreter):
    """Runs a graph and keeps every tensor."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.tensors: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.tensors[n.name] = result
        return result


def traces(captured: CapturedModel, requests: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Every intermediate for each request of one candidate: there a row has exactly the places of a mask."""
    found: list[dict[str, Tensor]] = []
    for rows in requests:
        values = placeholders(captured, rows)
        trace = Trace(captured.graph_module)
        with torch.no_grad():
            trace.run(*(values[node.target] for node in captured.graph_module.graph.find_nodes(op="placeholder")))
        found.append(trace.tensors)
    return found


def assert_labels_hold(plan: Plan, intermediates: list[dict[str, Tensor]]) -> None:
    first, *others = intermediates
    for name, value in plan.interpretation.values.items():
        label = plan.interpretation.labels[name]
        changed = torch.zeros(first[name].shape, dtype=torch.bool)
        for other in others:
            changed |= first[name] != other[name]
        shared = torch.from_numpy(np.asarray(shared_mask(value)))
        assert shared.shape == changed.shape, name
        assert not (changed & shared).any(), f"{name} is {label}, but a rank-2 element of it changes"
        if label.rank is Rank.RANK3:
            assert changed.any(), f"{name} is {label}, but nothing of it changes"
        if label.rank is Rank.MIXED:
            assert changed.any(), name
            assert label.shared == pytest.approx(float(shared.double().mean())), name
        if label.rank in (Rank.RANK2, Rank.PARAMETER):
            assert shared.all(), name


@pytest.mark.parametrize("name", ["dlrm", "dcnv2_mix", "autoint", "mc_mlcc"])
def test_zoo(name: str) -> None:
    model = ENTRIES[name].model(SCHEMA).eval()
    rows = {field.name: torch.randint(0, field.vocabulary, (5,)) for field in FIELDS}
    captured = capture(model, (rows,))
    context = {f"features.{name}" for name in SCHEMA.context}  # between target fields
    requests = _requests(captured.examples, context, lambda x: torch.randint(0, 30, x.shape))
    assert_labels_hold(_plan(captured, context, FULL), traces(captured, requests))


class Mixed(nn.Module):
    """The places where a label can go wrong: mixed values cut, repeated, folded and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, c: Tensor, t: Tensor) -> list[Tensor]:
        x = torch.cat([c, t, c[:, :1]], 1)  # [R, 6, 4]
        interleaved = x[:, [0, 4, 1, 3, 5, 2]]
        folded = self.linear(interleaved.reshape(-1, 4)).reshape(-1, 24)
        gram = torch.bmm(x, x.transpose(1, 2))
        heads = x.reshape(-1, 6, 2, 2).permute(2, 0, 1, 3).reshape(-1, 6, 2)
        return [
            folded[:, 2:19:3],
            gram.flatten(1)[:, [1, 9, 11, 35]],
            torch.nn.functional.layer_norm(x, (4,)),
            gram.softmax(-1),
            heads.flip(1).relu(),
            x + c.mean(1, keepdim=True),
            torch.topk(x, 2, 1)[0],
            c.repeat(1, 2, 1) * 2,
        ]


@pytest.fixture(scope="module")
def mixed() -> CapturedModel:
    return capture(Mixed().eval(), (torch.randn(5, 3, 4), torch.randn(5, 2, 4)))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_mixed_values(policy: Policy, mixed: CapturedModel) -> None:
    requests = _requests(mixed.examples, {"c"}, torch.randn_like)
    assert_labels_hold(_plan(mixed, {"c"}, policy), traces(mixed, requests))


def test_what_all_rows_were_mixed_into_is_not_rank_2() -> None:
    """The mean over the candidates has no row axis, and still changes with the target."""

    class Centred(nn.Module):
        def forward(self, c: Tensor, t: Tensor) -> Tensor:
            return (t - t.mean(0)) * c

    captured = capture(Centred().eval(), (torch.randn(5, 4), torch.randn(5, 4)))
    plan = _plan(captured, {"c"}, FULL)
    mean = plan.interpretation.values["mean"]
    assert plan.interpretation.labels["mean"].rank is Rank.OPAQUE
    assert label_of(mean).rank is Rank.RANK3
    assert not shared_mask(mean).any()


def test_a_label_names_its_inputs_and_its_share(mixed: CapturedModel) -> None:
    labels = _plan(mixed, {"c"}, FULL).interpretation.labels
    assert str(labels["cat"]) == "mixed (67% rank-2)"
    assert labels["cat"].inputs == ("c", "t")
    assert {labels[weight.placeholder].rank for weight in mixed.weights} == {Rank.PARAMETER}
    assert labels[mixed.inputs[0].placeholder].inputs == ("c",)


def _requests(
    examples: Mapping[str, Tensor], context: set[str], draw: Callable[[Tensor], Tensor]
) -> list[dict[str, Tensor]]:
    first = {name: tensor[:1] for name, tensor in examples.items()}
    return [first] + [
        {name: tensor if name in context else draw(tensor) for name, tensor in first.items()} for _ in range(DRAWS)
    ]


def _plan(captured: CapturedModel, context: set[str], policy: Policy) -> Plan:
    roles = [InputRole(i.name, Role.CONTEXT if i.name in context else Role.TARGET) for i in captured.inputs]
    plan = interpret(captured, roles, 64, policy)
    assert all(isinstance(value, Value) for value in plan.interpretation.values.values())
    return plan
