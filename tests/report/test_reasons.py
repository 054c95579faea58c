"""Why work stays per candidate: laws that hold and do not pay, and a reason for every node that reads the context."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.report import terminal
from rankopt.report.tree import NodeFacts, Report
from rankopt.zoo import ENTRIES, Field, Schema
from rankopt.zoo.describe import probe

SWEEP = bool(os.environ.get("RANKOPT_SWEEP"))
SLICE = ("dcnv2", "din")
"""Models of the zoo of which the suite has every node explained; with RANKOPT_SWEEP it is all of them."""


class Crossed(nn.Module):
    """Two cross layers: the matrix of the second can be composed with the context, at a price per request."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(96, 96), nn.Linear(96, 96), nn.Linear(96, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        x = torch.cat([user, item], 1)
        y = x * self.first(x) + x
        return self.out(torch.relu(x * self.second(y) + y))


class Perceptron(nn.Module):
    """So wide that for two candidates one product is cheaper than two."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(96, 1024), nn.Linear(1024, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(torch.cat([user, item], 1))))


class Second(nn.Module):
    """Reads the second smallest of the context and target features together."""

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return torch.kthvalue(torch.cat([user, item], 1), 2, 1)[0]


def explain(model: Callable[[], nn.Module], candidates: int, **options: Any) -> Report:
    torch.manual_seed(0)
    request = {"user": torch.randn(1, 80)}, {"item": torch.randn(7, 16)}
    return rankopt.explain(model().eval(), *request, candidates=candidates, **options)


def node(report: Report, name: str) -> NodeFacts:
    return next(node for node in report.nodes if node.name == name)


# ------------------------------------------------------------------------------------------- what does not pay


def test_a_composition_that_costs_more_than_it_saves() -> None:
    few, many = explain(Crossed, 2), explain(Crossed, 20_000)
    found = next(facts for facts in few.declined if "linear_1" in facts.nodes)
    assert found.possible.each < found.now.each
    assert found.possible.at(2) > found.now.at(2)
    assert found.reason.startswith("sharing it costs more than it saves at 2 candidates: ")
    assert found.break_even is not None
    assert 2 < found.break_even < 20_000
    assert node(few, "linear_1").why == f"{found.reason}; pays from {found.break_even:,} candidates on"
    assert not any("linear_1" in facts.nodes for facts in many.declined)


def test_from_its_break_even_on_it_is_not_declined() -> None:
    declined = explain(Perceptron, 2).declined
    assert declined
    assert declined[0].nodes == ("linear",)
    number = declined[0].break_even
    assert number is not None
    assert explain(Perceptron, 2 * number).declined == ()
    assert explain(Perceptron, max(number // 2, 1)).declined != ()


def test_work_of_what_is_declined_is_that_of_the_report() -> None:
    report = explain(Perceptron, 2)
    (found,) = report.declined
    assert found.now.each == node(report, "linear").before.each
    assert found.possible.once == 2 * 80 * 1024
    assert found.possible.each == 2 * 16 * 1024


def test_where_a_law_would_have_kept_context_and_target_apart() -> None:
    reasons = [refusal.reason for refusal in explain(Crossed, 4).refusals]
    assert any("puts context and target together; to keep them apart pays from" in reason for reason in reasons)


def test_nothing_is_declined_where_all_is_shared() -> None:
    report = explain(Perceptron, 20_000)
    assert report.declined == ()
    assert node(report, "relu").why == "relu mixes context and target"
    assert node(report, "linear_1").why == "behind relu: relu mixes context and target"
    assert node(report, "linear").why == "split: what is left of it needs target values"


def test_an_op_without_a_rule() -> None:
    assert node(explain(Second, 512), "kthvalue").why == "no rule for aten.kthvalue.default"


def test_the_terminal_lists_what_does_not_pay() -> None:
    report = explain(Crossed, 4)
    lines = terminal.plain(report, 80).splitlines()
    start = lines.index("Could be shared, but does not pay at 4 candidates")
    assert lines[start + 1].split() == ["what", "per", "request", "shared", "pays", "from", "line"]
    assert any(f"{report.declined[0].break_even:,}" in line for line in lines[start + 3 :])
    assert max(map(len, lines)) <= 80


# ------------------------------------------------------------------------------------------- modules and shares


def test_nodes_know_their_module_and_what_is_left_of_their_work() -> None:
    report = explain(Perceptron, 20_000)
    assert [node(report, name).module for name in ("cat", "linear", "linear_1")] == ["", "hidden", "out"]
    assert node(report, "linear").share.each == pytest.approx(2 * 16 * 1024)
    assert node(report, "linear").share.once == pytest.approx(2 * 80 * 1024)
    assert sum(node.share.at(1000) for node in report.nodes) == pytest.approx(report.after.flops.at(1000))


def test_modules_of_an_exported_program() -> None:
    rows = torch.randn(5, 96)
    model = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 1)).eval()
    program = torch.export.export(model, (rows,), dynamic_shapes=({0: torch.export.Dim("R")},), strict=False)
    report = rankopt.explain(program, ["input[:, :80]"])
    assert [node(report, name).module for name in ("linear", "relu", "linear_1")] == ["0", "1", "2"]


# ------------------------------------------------------------------------------------------- every node of the zoo

FIELDS = (
    Field("user", 23), Field("item", 31), Field("genres", 11, length=3), Field("city", 7),
    Field("seen", 31, history=4, of="item"), Field("seen_genres", 11, length=3, history=4, of="genres"),
)  # fmt: skip
SCHEMA = Schema(FIELDS, context=("user", "city", "seen", "seen_genres"), target=("item", "genres"))


@pytest.mark.parametrize("candidates", [8, 512])
@pytest.mark.parametrize("name", ENTRIES if SWEEP else SLICE)
def test_every_node_that_stays_per_candidate_has_a_reason(name: str, candidates: int) -> None:
    torch.manual_seed(0)
    model = ENTRIES[name].model(SCHEMA).eval()
    features = {field.name: probe(field) for field in FIELDS}
    context = [f"features.{name}" for name in SCHEMA.context]
    report = rankopt.explain(model, context, example_inputs=(features,), candidates=candidates)
    stays = [node for node in report.nodes if stays_per_candidate(node) and set(node.inputs) & set(context)]
    assert any(node.why for node in report.nodes)
    assert [node.name for node in stays if not node.why] == []
    assert not any(node.why for node in report.nodes if not set(node.inputs) & set(context))
    if report.unchanged and report.declined and report.declined[0].break_even is not None:
        assert report.unchanged.endswith(f"pays from {report.declined[0].break_even:,} candidates on")


def stays_per_candidate(node: NodeFacts) -> bool:
    work = (node.after.each, node.after.elementwise_each, node.share.each)
    return any(work) and node.op not in ("input", "output")
