"""Plans by the number of candidates: which are kept, which serves, and that they are one ranker in one file."""

from base64 import b64decode, b64encode
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import with_added, with_json, with_member
from torch import Tensor, nn

import rankopt
from rankopt import envelope
from rankopt.errors import FormatError, InputError, StageError
from rankopt.pipeline import capture_with_roles
from rankopt.ranker import Ranker

WIDTH = 256


class Cross(nn.Module):
    """A product of context and target behind a wide layer: folding it costs once what many candidates save."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(50, WIDTH)
        self.items = nn.Embedding(60, WIDTH)
        self.register_buffer("places", torch.tensor([1, 0, 2, 3]))
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.outer = nn.Linear(WIDTH, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        x = self.users(user) * self.hidden(self.items(item))
        return self.head(torch.relu(self.outer(x)))[:, self.places]


def request(candidates: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(candidates)
    ids = torch.randint(60, (candidates,), generator=generator)
    return {"user": torch.tensor([7])}, {"item": ids}


@pytest.fixture(scope="module")
def model() -> Cross:
    torch.manual_seed(0)
    return Cross().eval()


@pytest.fixture(scope="module")
def ranker(model: Cross) -> Ranker:
    return rankopt.optimize(model, *request(8), candidates=(1, 5000))


@pytest.fixture(scope="module")
def path(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "ranker.pt2"
    ranker.save(path)
    return path


def truth(model: Cross, context: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(context["user"].expand(len(target["item"])), target["item"])


def numbers(ranker: Ranker) -> list[int]:
    """Both ends of every range, and what lies beyond all."""
    return [0, *(n for span in ranker.interface.ranges for n in (span.first, span.last)), 6000]


# -------------------------------------------------------------------------------------------- which plans are kept


def line(fixed: float, each: float) -> envelope.Price:
    return lambda plan, n: [fixed, fixed / 10][plan] + [each, 3 * each][plan] * n


def test_ranges_follow_each_other_from_little_work_once_to_the_fold(ranker: Ranker) -> None:
    spans = ranker.interface.ranges
    assert spans[0].first == 1
    assert spans[-1].last == 5000
    assert all(after.first == before.last + 1 for before, after in pairwise(spans))
    assert spans[0].policy.partition(",")[0] in ("unchanged", "context once", "split only")
    assert len({span.policy for span in spans}) == len(spans) > 1


def test_the_fewest_plans_that_are_good_enough_cover_all_numbers() -> None:
    price = line(1000.0, 1.0)  # they cross at 450
    runs = envelope._cover(2, price, envelope._grid(1, 5000))
    assert [plan for plan, _ in runs] == [0, 1]
    assert [n for _, stretch in runs for n in stretch] == envelope._grid(1, 5000)[::-1]
    start = envelope._crossover(price, (0, 1), runs[1][1][0], runs[0][1])
    assert 440 <= start <= 460


def test_a_plan_that_is_hardly_better_is_not_kept() -> None:
    def price(plan: int, n: int) -> float:
        return (1.0 + 0.02 * ((n > 100) == (plan == 0))) * n

    assert len(envelope._cover(2, price, envelope._grid(1, 5000))) == 1


def test_no_number_is_served_much_slower_than_by_the_best_plan(model: Cross) -> None:
    captured, roles = capture_with_roles(model, *request(8), None)
    plans = envelope.plans_for(captured, roles, 1, 5000)
    curves = envelope.Curves(plans, plans[0].workspace.profile)
    before = next(i for i, plan in enumerate(plans) if plan.policy.unchanged)
    for piece in envelope.envelope(plans, 1, 5000):
        served = next(i for i, plan in enumerate(plans) if plan is piece.plan)
        for n in (piece.first, piece.last):
            best = min(curves.time(i, n) for i in range(len(plans)))
            assert curves.time(served, n) <= envelope.CAUTION * (1 + envelope.TOLERANCE) * best
            assert curves.time(served, n) <= (1 + envelope.TOLERANCE) * curves.time(before, n)


def test_a_program_that_several_policies_lead_to_is_kept_once(model: Cross) -> None:
    captured, roles = capture_with_roles(model, *request(8), None)
    plans = envelope.plans_for(captured, roles, 1, 5000)
    curves = envelope.Curves(plans, plans[0].workspace.profile)
    assert not any(curves.same(i, j) for i in range(len(plans)) for j in range(i))


def test_one_number_is_one_plan(model: Cross) -> None:
    captured, roles = capture_with_roles(model, *request(8), None)
    plans = envelope.plans_for(captured, roles, 300, 300)
    assert envelope.envelope(plans, 300, 300) == [envelope.Piece(300, 300, plans[0])]


def test_the_break_even_is_where_the_estimates_cross(model: Cross) -> None:
    captured, roles = capture_with_roles(model, *request(8), None)
    plans = envelope.plans_for(captured, roles, 5000, 5000)
    before = next(plan for plan in plans if plan.policy.unchanged)
    number = envelope.break_even(plans[0], before)
    assert number is not None
    assert number > 1
    curves = envelope.Curves([plans[0], before], plans[0].workspace.profile)
    assert curves.time(0, number) < curves.time(1, number)
    assert curves.time(0, number * 9 // 10) >= curves.time(1, number * 9 // 10)
    assert envelope.break_even(before, plans[0]) is None


@pytest.mark.parametrize("candidates", [0, -1, (0, 5), (5, 1), (1, 2, 3), "5", 2.0])
def test_what_is_no_number_of_candidates(model: Cross, candidates: Any) -> None:
    with pytest.raises(InputError, match=r"fix: candidates=512, or candidates=\(1, 2000\)"):
        rankopt.optimize(model, *request(8), candidates=candidates)


# ----------------------------------------------------------------------------------------------------- one ranker


def test_every_plan_gives_the_scores_of_the_model(ranker: Ranker, model: Cross) -> None:
    for n in numbers(ranker):
        context, target = request(n)
        scores = truth(model, context, target)
        torch.testing.assert_close(ranker(context, target), scores)
        for other in numbers(ranker):
            state = ranker.context_stage(context, candidates=other)
            torch.testing.assert_close(ranker.candidate_stage(state, target), scores)
        rows = {"user": context["user"].expand(n), **target}
        if n:
            torch.testing.assert_close(ranker.from_rows(**rows), scores)


def test_the_number_of_candidates_chooses_the_plan(ranker: Ranker) -> None:
    for n in numbers(ranker):
        context, target = request(n)
        alone = ranker.at(n)
        assert torch.equal(ranker(context, target), alone(context, target))
        assert ranker.context_stage(context, candidates=n).keys() == alone.context_stage(context).keys()
    assert ranker.context_stage(context).keys() == ranker.at(5000).context_stage(context).keys()


def test_a_state_of_no_plan_is_refused(ranker: Ranker) -> None:
    with pytest.raises(StageError, match="the state is not one of this ranker"):
        ranker.candidate_stage({"state_other": torch.zeros(1)}, request(3)[1])


def test_verification_looks_at_every_plan(ranker: Ranker) -> None:
    result = ranker.verify()
    assert result.identical
    assert {ranker.interface.place(n) for n in result.candidates} == set(range(len(ranker.interface.ranges)))


def test_a_plan_with_other_scores_is_replaced(model: Cross, monkeypatch: pytest.MonkeyPatch) -> None:
    captured, roles = capture_with_roles(model, *request(8), None)
    wrong = envelope.envelope(envelope.plans_for(captured, roles, 1, 5000), 1, 5000)[-1].plan.policy.name
    original = rankopt.pipeline.verify

    def verify(captured: Any, ranker: Ranker, requests: Any, candidates: Any, plans: Any) -> Any:
        result = original(captured, ranker, requests, candidates, plans=plans)
        if ranker.interface.policy != wrong:
            return result
        monkeypatch.setattr(type(result), "identical", property(lambda self: self is not result))
        return result

    monkeypatch.setattr(rankopt.pipeline, "verify", verify)
    ranker = rankopt.optimize(model, *request(8), candidates=(1, 5000))
    assert ranker.interface.policy != wrong
    assert [policy.name for policy in ranker.report.policies if policy.dropped] == [wrong]


def test_weights_are_shared_and_prepared_once(ranker: Ranker, model: Cross) -> None:
    assert {name: id(tensor) for name, tensor in ranker.weights().items()} == {
        name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items() if name in ranker.weights()
    }
    prepared: dict[str, Tensor] = {}
    for variant in ranker._variants:
        with torch.no_grad():
            tensors = variant.prepared()
        for name, tensor in zip(variant.stages.prepared, tensors, strict=True):
            assert prepared.setdefault(name, tensor) is tensor


def test_new_weights_reach_every_plan(model: Cross) -> None:
    torch.manual_seed(1)
    other = Cross().eval()
    ranker = rankopt.optimize(Cross().eval(), *request(8), candidates=(1, 5000))
    ranker.load_original_state_dict(other.state_dict())
    for n in numbers(ranker):
        context, target = request(n)
        torch.testing.assert_close(ranker(context, target), truth(other, context, target))
    with torch.no_grad():
        other.outer.weight.mul_(2.0)
        ranker.get_parameter_or_buffer("outer.weight").mul_(2.0)
    for n in numbers(ranker):
        context, target = request(n)
        torch.testing.assert_close(ranker(context, target), truth(other, context, target))


def test_gradients_reach_the_parameters_through_every_plan(ranker: Ranker, model: Cross) -> None:
    for n in (1, 5000):
        context, target = request(n)
        parameters = list(model.parameters())
        rewritten = torch.autograd.grad(ranker(context, target).square().mean(), parameters)
        tiled = model(context["user"].expand(n), target["item"]).square().mean()
        for found, expected in zip(rewritten, torch.autograd.grad(tiled, parameters), strict=True):
            torch.testing.assert_close(found, expected)


def test_torch_compile_takes_the_plan_of_the_number(ranker: Ranker, model: Cross) -> None:
    compiled = torch.compile(ranker, dynamic=True, backend="eager")
    with torch.no_grad():
        for n in (2, 5000, 3, 4000):
            context, target = request(n)
            torch.testing.assert_close(compiled(context, target), truth(model, context, target))


# ------------------------------------------------------------------------------------------------------- one file


def test_all_plans_are_in_the_file(ranker: Ranker, path: Path) -> None:
    loaded = rankopt.load(path)
    assert loaded.interface.ranges == ranker.interface.ranges
    assert loaded.report == ranker.report
    for n in numbers(ranker):
        context, target = request(n)
        assert torch.equal(loaded(context, target), ranker(context, target))
        state = ranker.context_stage(context, candidates=n)
        assert torch.equal(loaded.candidate_stage(state, target), ranker.candidate_stage(state, target))


def test_the_file_holds_the_weights_once(ranker: Ranker, path: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.pt2"
    ranker.at(5000).save(one)
    assert path.stat().st_size - one.stat().st_size < 100_000 * (len(ranker.interface.ranges) - 1)
    assert path.stat().st_size > sum(tensor.nbytes for tensor in ranker.weights().values())


def test_plain_torch_reads_the_plan_for_the_largest_numbers(ranker: Ranker, path: Path) -> None:
    context, target = request(40)
    with torch.no_grad():
        found = torch.export.load(path).module()(context, target)
    assert torch.equal(found, ranker.at(5000)(context, target))


def test_a_loaded_ranker_is_saved_again(path: Path, tmp_path: Path, ranker: Ranker) -> None:
    again = tmp_path / "again.pt2"
    rankopt.load(path).save(again)
    loaded = rankopt.load(again)
    for n in numbers(ranker):
        assert torch.equal(loaded(*request(n)), ranker(*request(n)))


def test_a_file_of_format_1_is_read(ranker: Ranker, tmp_path: Path) -> None:
    one, old = tmp_path / "one.pt2", tmp_path / "old.pt2"
    ranker.at(5000).save(one)

    def as_format_1(data: dict[str, Any]) -> None:
        data["format"] = 1
        del data["plans"], data["report"]["ranges"], data["report"]["break_even"]
        (span,) = data["interface"].pop("ranges")
        data["interface"] |= {"candidates": span["last"], "policy": span["policy"]}

    loaded = rankopt.load(with_json(one, old, "extra/rankopt.json", as_format_1))
    assert (loaded.interface.candidates, loaded.interface.policy) == (5000, ranker.interface.policy)
    assert loaded.report is not None
    assert torch.equal(loaded(*request(9)), ranker.at(5000)(*request(9)))


def test_a_damaged_plan_is_refused(path: Path, tmp_path: Path) -> None:
    for name, change in (
        ("short", lambda content: content[:-400]),
        ("none", lambda content: None),
        ("text", lambda content: b"not base64"),
    ):
        damaged = with_member(path, tmp_path / f"{name}.pt2", "extra/rankopt_plan_0.b64", change)
        with pytest.raises(FormatError, match=r"a plan in it is damaged"):
            rankopt.load(damaged)


def test_a_plan_that_runs_code_is_refused(path: Path, tmp_path: Path) -> None:
    def harmful(content: bytes) -> bytes:
        inner = tmp_path / "inner.pt2"
        inner.write_bytes(b64decode(content))
        return b64encode(with_added(inner, tmp_path / "worse.pt2", "data/weights/model.pt", b"x").read_bytes())

    worse = with_member(path, tmp_path / "outer.pt2", "extra/rankopt_plan_0.b64", harmful)
    with pytest.raises(FormatError, match="would run code when it is read"):
        rankopt.load(worse)


def test_the_report_says_which_plan_serves_what(ranker: Ranker) -> None:
    report = ranker.report
    assert report is not None
    assert [(r.first, r.last, r.policy) for r in report.ranges] == [
        (span.first, span.last, span.policy) for span in ranker.interface.ranges
    ]
    assert report.candidates == 5000
    assert "Plans by the number of candidates" in str(report)
    assert sum(policy.chosen for policy in report.policies) == len(report.ranges)
