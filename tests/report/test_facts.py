"""The facts of a report: numbers, labels, lines and reasons, on models small enough to check by hand."""

from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt import cost, pipeline
from rankopt.cost import Flops
from rankopt.envelope import Piece
from rankopt.errors import FormatError
from rankopt.labels import Rank
from rankopt.plan import alternatives, references
from rankopt.report import json
from rankopt.report.facts import Report, build_report
from rankopt.report.tree import NodeFacts, RefusalFacts
from rankopt.stages import split

N = 512


class Dlrm(nn.Module):
    """Two context and two target embeddings, dense context features, pairwise products, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(100, 16), nn.Embedding(200, 16)
        self.bottom = nn.Linear(8, 32)
        self.top = nn.Sequential(nn.Linear(6 * 16 + 15, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
        for name, index in zip("ij", torch.triu_indices(6, 6, 1), strict=True):
            self.register_buffer(name, index)

    def forward(self, user: Tensor, dense: Tensor, item: Tensor) -> Tensor:
        bottom = torch.relu(self.bottom(dense)).view(-1, 2, 16)
        fields = torch.cat([self.user(user), bottom, self.item(item)], 1)  # [R, 6, 16]
        gram = fields @ fields.transpose(1, 2)
        pairs = gram[:, self.i, self.j]  # [R, 15]
        return self.top(torch.cat([fields.flatten(1), pairs], 1)).squeeze(-1)


class Attention(nn.Module):
    """Self-attention over two context and two target tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(64, 1)

    def forward(self, history: Tensor, item: Tensor) -> Tensor:
        x = torch.cat([history, item], 1)
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.head(self.norm(y).flatten(1))


class Best(nn.Module):
    """Reads the largest of the context and target features together."""

    def __init__(self) -> None:
        super().__init__()
        self.context, self.hidden, self.out = nn.Linear(8, 32), nn.Linear(12, 32), nn.Linear(32, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        features = torch.cat([self.context(user), item], 1)
        best, _ = torch.topk(features, 12)
        return self.out(torch.relu(self.hidden(best)))


class Alone(nn.Module):
    """An MLP over the target; the context only scales its result."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(16, 32), nn.Linear(32, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(item))) * user


class Packed(nn.Module):
    """One input with context and target columns, taken apart and put together again."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(12, 32), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return self.out(torch.relu(self.hidden(torch.cat([right, left], 1))))


DLRM = (
    {"user": torch.randint(0, 100, (1, 2)), "dense": torch.randn(1, 8)},
    {"item": torch.randint(0, 200, (7, 2))},
)
VECTORS = ({"user": torch.randn(1, 8)}, {"item": torch.randn(7, 8)})
CASES = {
    "dlrm": (Dlrm, DLRM),
    "attention": (Attention, ({"history": torch.randn(1, 2, 16)}, {"item": torch.randn(7, 2, 16)})),
    "best": (Best, VECTORS),
    "alone": (Alone, ({"user": torch.randn(1, 1)}, {"item": torch.randn(7, 16)})),
}


@pytest.fixture(scope="module")
def dlrm() -> Any:
    return rankopt.optimize(Dlrm().eval(), *DLRM, candidates=N)


def explain(name: str) -> Report:
    model, request = CASES[name]
    return rankopt.explain(model().eval(), *request, candidates=N)


def with_plan(name: str, *order: str) -> Report:
    """The report when the plans of these policies came first, in this order; all but the last were dropped."""
    model, request = CASES[name]
    captured, roles = pipeline.capture_with_roles(model().eval(), *request, None)
    found = {plan.policy.name: plan for plan in alternatives(captured, roles, N)}
    first = [found.pop(policy) for policy in order]
    plan, plans = first[-1], [*first, *found.values()]
    stages = split(plan.exprs, plan.outputs, plan.workspace.program.constants)
    pieces = [Piece(N, N, plan)]
    return build_report(captured, roles, pieces, plans, first[:-1], references(captured, roles, N), stages, None)


def node(report: Report, name: str) -> NodeFacts:
    return next(node for node in report.nodes if node.name == name)


def refusal(report: Report, name: str) -> RefusalFacts:
    return next(refusal for refusal in report.refusals if refusal.node == name)


def add(flops: Any) -> Flops:
    return sum(flops, Flops())


def assert_close(found: Flops, expected: Flops) -> None:
    for field in fields(Flops):
        assert getattr(found, field.name) == pytest.approx(getattr(expected, field.name)), field.name


# --------------------------------------------------------------------------------------------- numbers


def test_flops_before_are_those_counted_by_hand(dlrm: Any) -> None:
    linear = 8 * 32 + (96 + 15) * 64 + 64 * 32 + 32
    assert dlrm.report.before.flops.each == 2 * (linear + 6 * 6 * 16)
    assert dlrm.report.before.flops.once == 0


def test_figures_are_those_of_the_programs(dlrm: Any) -> None:
    _, plan = dlrm.origin
    assert dlrm.report.after.flops == cost.flops(plan.exprs)
    assert dlrm.report.after.time == plan.time
    assert dlrm.report.unshared.flops.once == 0


@pytest.mark.parametrize("name", CASES)
def test_work_of_nodes_and_of_families_adds_up(name: str) -> None:
    report = explain(name)
    assert add(node.before for node in report.nodes) == report.before.flops
    assert add(node.after for node in report.nodes) == report.after.flops
    assert_close(add(family.before for family in report.families), report.before.flops)
    assert_close(add(family.after for family in report.families), report.after.flops)


def test_pending_work_is_given_back_to_the_layer_that_it_is(dlrm: Any) -> None:
    report = dlrm.report
    assert "relu_2" in node(report, "linear_2").done_in
    assert node(report, "linear_2").after.each == 0
    assert node(report, "relu_2").after.each == 2 * 64 * 32
    families = {family.name: family for family in report.families}
    assert families["elementwise"].after.each == 0
    assert families["linear"].after.each >= 2 * (64 * 32 + 32)


def test_state_is_what_the_context_stage_returns(dlrm: Any) -> None:
    state = dlrm.context_stage(DLRM[0])
    found = {tensor.name: (tensor.shape, f"torch.{tensor.dtype}") for tensor in dlrm.report.state}
    assert found == {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in state.items()}
    assert dlrm.report.state_bytes == sum(tensor.nbytes for tensor in state.values())
    saved = dlrm.report.before.flops.at(N) - dlrm.report.after.flops.at(N)
    assert dlrm.report.saved_per_byte == saved / dlrm.report.state_bytes


def test_policies_are_listed_with_the_one_chosen(dlrm: Any) -> None:
    chosen = [policy for policy in dlrm.report.policies if policy.chosen]
    assert [policy.name for policy in chosen] == [dlrm.report.policy]
    assert chosen[0].figure == dlrm.report.after
    assert "unchanged" in [policy.name for policy in dlrm.report.policies]
    assert not any(policy.dropped for policy in dlrm.report.policies)


# --------------------------------------------------------------------------------------------- nodes


def test_labels(dlrm: Any) -> None:
    report = dlrm.report
    assert [node(report, name).rank for name in ("user", "item", "linear", "cat", "linear_1")] == [
        Rank.RANK2, Rank.RANK3, Rank.RANK2, Rank.MIXED, Rank.RANK3,
    ]  # fmt: skip
    assert node(report, "cat").shared == pytest.approx(4 / 6)
    assert node(report, "cat").label == "mixed (67% rank-2)"
    assert node(report, "linear").inputs == ("dense",)
    assert node(report, "linear_1").inputs == ("dense", "item", "user")


def test_every_line_is_the_users(dlrm: Any) -> None:
    source = Path(__file__).read_text().splitlines()
    calls = [node for node in dlrm.report.nodes if node.op not in ("input", "output")]
    for call in calls:
        assert call.line is not None
        assert Path(call.line.file) == Path(__file__)
        assert call.line.code == source[call.line.number - 1].strip()
    assert "self.bottom(dense)" in node(dlrm.report, "linear").line.code
    assert str(node(dlrm.report, "linear").line).startswith("test_facts.py:")


def test_several_results_are_labelled_by_what_they_are() -> None:
    report = rankopt.explain(Packed().eval(), ["x[:, :6]"], example_inputs=(torch.randn(5, 12),))
    assert node(report, "chunk").rank is Rank.MIXED
    assert node(report, "getitem").rank is Rank.RANK2
    assert node(report, "getitem_1").rank is Rank.RANK3
    assert refusal(report, "relu").reason == "relu mixes context and target"


# --------------------------------------------------------------------------------------------- reasons


def test_a_nonlinearity_ends_sharing_for_what_is_behind_it(dlrm: Any) -> None:
    (found,) = dlrm.report.refusals
    assert found.reason == "relu_1 mixes context and target"
    assert {"linear_2", "linear_3"} <= set(found.nodes)
    assert found.after.each == 2 * (64 * 32 + 32)
    assert found.line == node(dlrm.report, "relu_1").line


def test_an_opaque_op_is_refused_with_the_reason_of_its_rule() -> None:
    report = explain("best")
    assert node(report, "topk").rank is Rank.OPAQUE
    found = report.refusals[0]
    assert (found.node, found.op) == ("topk", "aten.topk.default")
    assert found.reason.startswith("an order among elements")
    assert found.after.each == 2 * (12 * 32 + 32)
    assert {"linear_1", "linear_2"} <= set(found.nodes)


def test_the_most_expensive_refusal_comes_first() -> None:
    kept = [refusal.after.at(N) for refusal in explain("attention").refusals]
    assert kept == sorted(kept, reverse=True)


def test_nothing_is_refused_where_only_the_target_is_worked_on() -> None:
    assert explain("alone").refusals == ()


def test_unchanged_says_why() -> None:
    slower = with_plan("dlrm", "unchanged")
    assert slower.after == slower.before
    assert slower.unchanged.startswith("the best rewriting saves ")
    assert slower.sentence.startswith("unchanged: 10.3 MFLOP per request at 512 candidates; the best rewriting")
    assert {node.rule for node in slower.nodes} == {""}
    assert node(slower, "cat").rank is Rank.MIXED  # what the best rewriting found out
    assert with_plan("alone", "unchanged").unchanged == "no law saves any work in it"


def test_plans_with_other_scores_are_marked_as_dropped() -> None:
    report = with_plan("dlrm", "full", "unchanged")
    assert [policy.name for policy in report.policies if policy.dropped] == ["full"]
    assert report.unchanged == "the rewritten programs did not give the scores of the model"


def test_gram_matrices_are_noted(dlrm: Any) -> None:
    assert dlrm.report.notes == ("Gram matrices counted as computed",)
    assert explain("alone").notes == ()


# --------------------------------------------------------------------------------------------- verification


def test_verification_in_words(dlrm: Any) -> None:
    found = dlrm.report.verification
    assert found.identical
    assert str(found).startswith("identical: float64 ")
    assert "x of the original's own error, same order (at 1, 64 candidates)" in str(found)
    assert explain("dlrm").verification is None


# --------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", CASES)
def test_json_round_trip(name: str) -> None:
    report = explain(name)
    assert json.loads(json.dumps(report)) == report


def test_many_requests_are_a_formula(dlrm: Any) -> None:
    report = dlrm.report
    formula = report.to_json()["many_requests"]
    assert eval(formula, {"B": 1, "R": report.candidates}) == report.after.flops.at(report.candidates)


def test_json_of_a_verified_report(dlrm: Any) -> None:
    again = json.loads(json.dumps(dlrm.report))
    assert again == dlrm.report
    assert str(again) == str(dlrm.report)


def test_facts_are_plain_data(dlrm: Any) -> None:
    assert_plain(dlrm.report)


def assert_plain(value: Any) -> None:
    if is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in fields(value))
    if isinstance(value, tuple):
        for item in value:
            assert_plain(item)
        return
    assert value is None or isinstance(value, (str, int, float, Enum)), type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 99}', "has version 99, and only version 1"),
        ("{}", "has version None"),
        ('{"version": 1}', "not a report"),
        ("[]", "JSON object"),
        ('{"version"', "not JSON"),
    ],
)
def test_other_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        json.loads(text)
