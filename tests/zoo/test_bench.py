"""The benchmark of the zoo: its list of runs, its file, and the page that is made of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from rankopt.cli import main
from rankopt.errors import CaptureError
from rankopt.zoo import ENTRIES, Field, Recipe, Schema, bench
from rankopt.zoo.bench import Settings, measure_one, train_one
from rankopt.zoo.cli import zoo
from rankopt.zoo.counting import FAMILIES, Family, count
from rankopt.zoo.dataset import Dataset, Rows, Schedule
from rankopt.zoo.describe import describe, function
from rankopt.zoo.dlrm import DLRM
from rankopt.zoo.errors import ZooError
from rankopt.zoo.experiments import BASELINE, SWEEPS, Experiment, experiments
from rankopt.zoo.measure import interleaved, measure, real_request
from rankopt.zoo.results import Results
from rankopt.zoo.table import TABLES, renew
from rankopt.zoo.weights import Weights

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
SCHEMA = Schema((Field("user", 12), Field("item", 12), Field("hour", 6)), ("user", "hour"), ("item",))


def made_up() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    features = {field.name: torch.randint(2, field.vocabulary, (200,), generator=draw) for field in SCHEMA.fields}
    rows = Rows(features, torch.randint(0, 2, (200,), generator=draw).float())
    return Dataset("made up", SCHEMA, *rows.split(100), Schedule(64, epochs=1))


def entry_of(experiment: Experiment, **facts: Any) -> dict[str, Any]:
    """A finished run with made-up figures."""
    figures = {
        "auc": 0.75,
        "log_loss": 0.6,
        "dense_parameters": 1000,
        "flops_before": 4000.0,
        "flops_after": 1000.0,
        "flops_saved": 0.75,
        "unchanged": "",
        "speedup": 2.0,
        "identical": True,
        "float64_error": 1e-15,
        "float32_ratio": 1.0,
        "top10": 1.0,
        "top100": 1.0,
        "epochs": 2,
        "cpu_seconds": 1.0,
        "complete": True,
    }
    return experiment.key | {"identity": experiment.identity} | figures | facts


def settings(folder: Path) -> Settings:
    return Settings(Weights(folder / "weights"), None, 60.0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_list_of_runs() -> None:
    runs = list(experiments(["movietweetings", "coupon"], list(ENTRIES), seeds=3))
    assert len(runs) == len({json.dumps(run.key) for run in runs}) == len({run.slug for run in runs})
    plain = {name for name, entry in ENTRIES.items() if not entry.needs_history}
    for data in ("movietweetings", "coupon"):
        assert {run.model for run in runs if run.data == data and run.is_default} == plain
        assert [run.seed for run in runs if run.model == "dcnv2" and run.data == data] == [0, 1, 2]
    with_history = {run.model for run in runs if run.data == "movietweetings_history"}
    assert with_history == {name for name, entry in ENTRIES.items() if entry.needs_history} | {BASELINE}
    assert {run.sees for run in runs if run.model == BASELINE} == {"all", "context", "target"}
    wide = Experiment("movietweetings", "mlcc", change=(("embedding_dim", 32),), seed=2)
    assert wide in runs
    assert wide.entry.config == replace(ENTRIES["mlcc"].config, embedding_dim=32)
    assert all(name in set(SWEEPS) for run in runs for name, _ in run.change)
    assert [run.model for run in experiments(["coupon"], ["dlrm"], 3)] == ["dlrm"]
    assert [run.seed for run in experiments(["movietweetings"], ["mc_mlcc"], 2) if not run.change] == [0, 1]


def test_the_file_knows_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, run = tmp_path / "zoo.json", Experiment("coupon", "dlrm")
    Results(path).add(entry_of(run))
    assert Results(path).has(run)
    assert not Results(path).has(replace(run, seed=1))
    assert not Results(path).has(replace(run, change=(("embedding_dim", 8),)))
    changed = replace(ENTRIES["dlrm"], config=replace(ENTRIES["dlrm"].config, dropout=0.5))
    monkeypatch.setitem(ENTRIES, "dlrm", changed)
    assert not Results(path).has(run)  # another model by now
    Results(path).add(entry_of(run, error="CaptureError: no"))
    assert len(Results(path).runs) == 1
    assert not Results(path).has(run)  # worth another try


def test_a_model_is_another_one_where_it_computes_something_else() -> None:
    dlrm, fm = ENTRIES["dlrm"], ENTRIES["fm"]
    assert function(dlrm) == function(replace(dlrm, recipe=Recipe(1.0)))
    assert function(dlrm) != function(replace(dlrm, build=lambda fields, config: DLRM(list(reversed(fields)), config)))
    assert len({function(entry) for entry in ENTRIES.values()}) == len(ENTRIES)
    state = torch.random.get_rng_state()
    function(replace(fm, recipe=Recipe(2.0)))
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setattr(bench.sources, "load", lambda name, path: made_up())
    monkeypatch.setattr(bench, "measure", partial(measure, seconds=0.0))
    given, run = settings(tmp_path), Experiment("coupon", "dnn")
    trained = train_one(run, given)
    assert given.weights.has(run)
    assert trained["complete"]
    assert trained["parameters"] == trained["dense_parameters"] + 16 * (12 + 12 + 6)
    facts = measure_one(run, given)
    assert trained.items() <= facts.items()
    assert facts["identical"]
    assert facts["float64_error"] <= 1e-9
    assert facts["flops_before"] > facts["flops_after"] > 0
    assert facts["speedup"] > 0
    json.dumps(facts)
    assert "identical, " in bench.saved(facts)

    def refuse(model: torch.nn.Module, dataset: Dataset, timed: bool) -> None:
        raise CaptureError("a loop over rows\n  fix: none")

    monkeypatch.setattr(bench, "measure", refuse)
    refused = measure_one(run, given)
    assert refused["error"].startswith("CaptureError: a loop over rows")
    assert bench.saved(refused) == "CaptureError: a loop over rows"


def test_an_ablation_and_a_second_seed_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setattr(bench.sources, "load", lambda name, path: made_up())
    given = settings(tmp_path)
    for run in (Experiment("coupon", "dnn", "context"), Experiment("coupon", "dlrm", seed=1)):
        train_one(run, given)
        facts = measure_one(run, given)
        assert "speedup" not in facts
        assert ("flops_after" in facts) == (run.sees == "all")
        bench.saved(facts)


def test_weights_are_those_that_were_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, run = Weights(tmp_path / "weights"), Experiment("coupon", "dlrm")
    assert not weights.has(run)
    model = run.entry.model(SCHEMA)
    weights.save(run, entry_of(run), model)
    assert weights.has(run)
    facts, loaded = weights.load(run, SCHEMA)
    assert facts == entry_of(run)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(ZooError, match="fix: delete it"):
        weights.load(run, SCHEMA.only(("user", "item")))
    monkeypatch.setitem(ENTRIES, "dlrm", replace(ENTRIES["dlrm"], recipe=Recipe(1.0)))
    assert not weights.has(run)
    weights.path(run).write_bytes(b"no weights")
    with pytest.raises(ZooError, match=r"dlrm.*cannot be read(.|\n)*fix: delete it"):
        weights.has(run)


def test_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained is not trained again, what is measured only where that is asked for."""
    called: list[str] = []

    def work(what: Any, runs: Sequence[Experiment], settings: Settings, jobs: int) -> Iterator[Any]:
        for run in runs:
            called.append(f"{what.__name__} {run.data} {run.sees}")
            if what is train_one:
                settings.weights.save(run, entry_of(run), run.entry.model(SCHEMA))
            yield run, entry_of(run)

    monkeypatch.setattr(bench, "work", work)
    lines: list[str] = []

    def go(only: str | None = None) -> list[str]:
        called.clear()
        failed = bench.run(
            models=["dlrm"], data=["movietweetings"], coupon_path=None, seeds=3, budget=1.0, jobs=1,
            only=only, weights=tmp_path / "weights", output=tmp_path / "new" / "zoo.json", echo=lines.append,
        )  # fmt: skip
        assert failed == 0
        return list(called)

    assert go("measure") == []
    assert go("train") == ["train_one movietweetings all"]
    assert go("train") == []
    assert go() == ["measure_one movietweetings all"]
    assert go() == []
    assert go("measure") == ["measure_one movietweetings all"]
    assert "1 runs, 1 of them trained" in lines
    (tmp_path / "new" / "zoo.json").unlink()
    assert go() == ["measure_one movietweetings all"]


def test_requests_are_made_of_test_rows() -> None:
    data = made_up()
    request = real_request(data, 7, seed=1)
    assert {name: len(ids) for name, ids in request.context.items()} == {"features.user": 1, "features.hour": 1}
    assert request.candidates == 7
    torch.manual_seed(0)
    assert measure(ENTRIES["dlrm"].model(SCHEMA), data, seconds=0.0)["top100"] == 1.0


def test_interleaved_calls_take_turns() -> None:
    calls: list[str] = []
    medians = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, seconds=0.0, least=3)
    assert set(medians) == {"a", "b"}
    assert calls[-6:] == ["a", "b"] * 3


def counted(folder: Path) -> Path:
    """A file of counts, with made-up figures."""
    work = {"before": 4000.0, "split": 3000.0, "least": 1000.0, "served": 1200.0}
    parts = {family: {"interaction": work} if family.perceptron else {} for family in FAMILIES}
    runs = [{"model": f.model, "paper": f.paper, "whole": work} | part for f, part in parts.items()]
    (folder / "counts.json").write_text(json.dumps({"runs": runs}))
    return folder / "counts.json"


def test_what_is_counted() -> None:
    assert [family.model for family in FAMILIES] == list(ENTRIES)
    whole = count(Family("dcnv2", "head"))
    inner = whole["interaction"]
    assert inner["before"] == pytest.approx(3 * (2 * 512 * 512 + 3 * 512), rel=1e-6)  # products, bias, cross, residual
    assert inner["split"] == pytest.approx(inner["before"] * 3 / 4, rel=0.01)  # three quarters of one layer in three
    assert inner["least"] < inner["before"] / 2
    assert whole["whole"]["before"] > inner["before"]


def test_the_page_is_made_of_the_file(tmp_path: Path) -> None:
    results, page = Results(tmp_path / "zoo.json"), tmp_path / "zoo.md"
    for number, run in enumerate(experiments(["movietweetings", "coupon"], list(ENTRIES), seeds=3)):
        results.add(entry_of(run, auc=0.7 + number / 10_000, complete=run.model != "fm"))
    page.write_text(PAGE.read_text())
    command = ["table", str(results.path), "--counts", str(counted(tmp_path)), "--into", str(page)]
    assert CliRunner().invoke(zoo, command).exit_code == 0
    text = page.read_text()
    assert all(f"<!-- table: {name} -->" in text for name in TABLES)
    assert "| dlrm |" in text
    assert "| fm * |" in text
    assert "| din (with histories) |" in text
    assert " ± " in text
    first = {path: path.read_bytes() for path in (tmp_path / "zoo").iterdir()}
    assert {path.name for path in first} == {"saving.svg", "mlcc.svg", "decomposition.svg"}
    assert CliRunner().invoke(zoo, command).exit_code == 0
    assert page.read_text() == text
    assert all(path.read_bytes() == content for path, content in first.items())


def test_a_page_without_figures(tmp_path: Path) -> None:
    page = tmp_path / "zoo.md"
    page.write_text("<!-- table: none -->\n<!-- end -->\n")
    Results(tmp_path / "zoo.json").add(entry_of(Experiment("coupon", "dlrm")))
    with pytest.raises(ZooError, match="asks for the table 'none'"):
        renew(tmp_path / "zoo.json", counted(tmp_path), page)
    (tmp_path / "zoo.json").write_text("{}")
    with pytest.raises(ZooError, match="rankopt zoo bench"):
        renew(tmp_path / "zoo.json", counted(tmp_path), page)
    with pytest.raises(ZooError, match="rankopt zoo bench"):
        Results(tmp_path / "zoo.json")


def test_the_zoo_is_part_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner()
    assert "zoo " in run.invoke(main, ["--help"]).output
    listed = run.invoke(main, ["zoo", "list"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in ENTRIES)
    shown = run.invoke(main, ["zoo", "show", "mlcc"])
    assert "Multi-Level Compression" in shown.output
    assert "305,893" in shown.output  # as published for Criteo
    assert run.invoke(main, ["zoo", "show", "din"]).exit_code == 0
    assert run.invoke(main, ["zoo", "show", "gbdt"]).exit_code == 2


@pytest.mark.parametrize("package", ["sklearn", "pyarrow"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("rankopt.zoo.cli.load_data", missing)
    result = CliRunner().invoke(main, ["zoo", "train", "dnn", "-o", str(tmp_path / "x.pt2")])
    assert result.exit_code == 1
    assert f"No module named {package!r}" in result.output
    assert "pip install 'rankopt[zoo]'" in result.output


def test_a_trained_model_says_which_inputs_are_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankopt.zoo.cli.load_data", lambda name, path, cache: made_up())
    program, ranker = tmp_path / "dlrm.pt2", tmp_path / "ranker.pt2"
    run = CliRunner()
    assert run.invoke(main, ["zoo", "train", "dlrm", "--budget", "0", "-o", str(program)]).exit_code == 0
    result = run.invoke(main, ["zoo", "optimize", str(program), "-o", str(ranker)])
    assert result.exit_code == 0, result.output
    assert "identical" in result.output
    assert ranker.is_file()
    (tmp_path / "other.pt2").write_bytes(b"no program")
    refused = run.invoke(main, ["zoo", "optimize", str(tmp_path / "other.pt2"), "-o", str(tmp_path / "r.pt2")])
    assert refused.exit_code == 1
    assert "rankopt optimize" in refused.output


@pytest.mark.parametrize("name", ENTRIES)
def test_every_model_can_be_shown(name: str) -> None:
    text = describe(ENTRIES[name])
    assert f"\n{name}: {ENTRIES[name].paper}\n" in text
    assert "  Criteo     39 fields" in text
