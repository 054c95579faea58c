"""Training, its checkpoint, and the file that comes out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from rankopt.zoo import ENTRIES, Field, Schema
from rankopt.zoo.checkpoint import Metrics, Phase
from rankopt.zoo.cli import zoo
from rankopt.zoo.dataset import Dataset, Recipe, Rows, Schedule
from rankopt.zoo.errors import ZooError
from rankopt.zoo.export import SCHEMA_FILE, export_program, save_program
from rankopt.zoo.files import write_whole
from rankopt.zoo.train import Step, Trained, best_epoch, is_searched, train

SCHEMA = Schema((Field("user", 12), Field("item", 12), Field("hour", 6)), ("user", "hour"), ("item",))
SCHEDULE = Schedule(batch_size=64, epochs=3, patience=3)


def made_up(rows: int = 600) -> Dataset:
    """Rows whose label is whether user and item have the same parity: neither side alone tells anything."""
    generator = torch.Generator().manual_seed(0)
    features = {field.name: torch.randint(2, field.vocabulary, (rows,), generator=generator) for field in SCHEMA.fields}
    labels = ((features["user"] + features["item"]) % 2 == 0).float()
    first, second = Rows(features, labels).split(rows * 3 // 4)
    return Dataset("made up", SCHEMA, first, second, SCHEDULE)


def same(left: Trained, right: Trained) -> bool:
    weights = zip(left.model.parameters(), right.model.parameters(), strict=True)
    numbers = (left.epochs, left.validation, left.test) == (right.epochs, right.validation, right.test)
    return numbers and all(torch.equal(a, b) for a, b in weights)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("model", ["dlrm", "mc_mlcc"])
def test_resumed_training_equals_uninterrupted(model: str, tmp_path: Path) -> None:
    entry, data, checkpoint = ENTRIES[model], made_up(), tmp_path / "checkpoint"
    whole = train(entry, data, seed=1)

    def interrupt_at(phase: Phase, epoch: int) -> Callable[[Step], None]:
        def on_step(step: Step) -> None:
            if (step.phase, step.epoch, step.batch) == (phase, epoch, 2):
                raise Interrupted

        return on_step

    for phase, epoch in ((Phase.SEARCH, 2), (Phase.FINAL, 1)):
        with pytest.raises(Interrupted):
            train(entry, data, seed=1, checkpoint=checkpoint, on_step=interrupt_at(phase, epoch))
    assert same(train(entry, data, seed=1, checkpoint=checkpoint), whole)
    assert not same(train(entry, data, seed=2), whole)


def test_a_budget_stops_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, data, checkpoint = ENTRIES["dlrm"], made_up(), tmp_path / "checkpoint"
    whole = train(entry, data, seed=1)
    clock = iter(range(10_000))
    monkeypatch.setattr("rankopt.zoo.train.time.perf_counter", lambda: float(next(clock)))
    first = train(entry, data, seed=1, checkpoint=checkpoint, budget=10)
    assert not first.complete
    assert first.epochs == 1  # seven batches each; stopped in the second
    runs, result = 1, first
    while not result.complete:
        result = train(entry, data, seed=1, checkpoint=checkpoint, budget=10)
        runs += 1
    assert runs > 3
    assert same(result, whole)
    assert result.seconds > first.seconds


def test_a_long_epoch_is_saved_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankopt.zoo.train.CHECKPOINT_SECONDS", 0.0)
    entry, data, checkpoint = ENTRIES["dnn"], made_up(), tmp_path / "checkpoint"
    steps: list[Step] = []

    def interrupt(step: Step) -> None:
        steps.append(step)
        if len(steps) == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(entry, data, checkpoint=checkpoint, on_step=interrupt)
    assert same(train(entry, data, checkpoint=checkpoint, on_step=steps.append), train(entry, data))
    assert steps[4].batch == 4  # the three that were saved are not made again


def test_validation_rows_of_its_own_decide_which_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made_up()
    data = replace(data, validation=data.test, recipe=Recipe(1e-2, 0.0))
    scores = iter([0.6, 0.7, 0.65])
    kept: list[dict[str, torch.Tensor]] = []

    def evaluate(model: nn.Module, rows: Rows, device: torch.device) -> Metrics:
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return Metrics(next(scores, 0.5), 0.0)

    monkeypatch.setattr("rankopt.zoo.train.evaluate", evaluate)
    result = train(ENTRIES["dnn"], data, checkpoint=tmp_path / "checkpoint")
    assert result.epochs == 2
    final = result.model.state_dict()
    assert all(torch.equal(final[name], tensor) for name, tensor in kept[1].items())
    again = train(ENTRIES["dnn"], data, checkpoint=tmp_path / "checkpoint").model.state_dict()  # nothing left to do
    assert all(torch.equal(again[name], tensor) for name, tensor in kept[1].items())


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(ENTRIES["dnn"], made_up(200))
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    train(ENTRIES["dnn"], made_up(200), seed=1, checkpoint=checkpoint)
    with pytest.raises(ZooError, match=r"another run: expected \{'seed': 2\}, found \{'seed': 1\}"):
        train(ENTRIES["dnn"], made_up(200), seed=2, checkpoint=checkpoint)


def test_learns_what_no_side_knows_alone() -> None:
    data = made_up(3000)
    data = replace(data, schedule=replace(SCHEDULE, epochs=12, patience=12))
    assert train(ENTRIES["dnn"], data).test.auc > 0.95
    for role in ("context", "target"):
        assert train(ENTRIES["dnn"], data.only(role)).test.auc < 0.6


def test_early_stopping_waits_as_long_as_it_was_told() -> None:
    history = [Metrics(auc, 0.0) for auc in (0.6, 0.7, 0.65, 0.66)]
    assert best_epoch(history) == 2
    patient = Schedule(epochs=10, patience=2)
    assert [is_searched(history[:n], patient) for n in range(5)] == [False, False, False, False, True]
    assert [is_searched(history[:n], Schedule(epochs=2, patience=9)) for n in range(4)] == [
        False,
        False,
        True,
        True,
    ]


def test_program_comes_back_with_any_number_of_rows_and_its_schema(tmp_path: Path) -> None:
    data, path = made_up(200), tmp_path / "dnn.pt2"
    model = train(ENTRIES["dnn"], data).model
    save_program(export_program(model, data.test), data.schema, path)
    extra = {SCHEMA_FILE: ""}
    program = torch.export.load(path, extra_files=extra)
    for rows in (1, 3, 50):
        features = data.test.take(slice(rows)).features
        torch.testing.assert_close(program.module()(features), model(features))
    assert json.loads(extra[SCHEMA_FILE])["context"] == ["user", "hour"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def made_up_tweets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankopt.zoo.cli.load_data", lambda name, path, cache: made_up())


@pytest.mark.usefixtures("made_up_tweets")
def test_command_trains_saves_and_reports(tmp_path: Path) -> None:
    path, metrics = tmp_path / "dlrm.pt2", tmp_path / "metrics.json"
    options = ["train", "dlrm", "--epochs", "2", "-o", str(path), "--json", str(metrics)]
    result = CliRunner().invoke(zoo, options)
    assert result.exit_code == 0, result.output
    facts = json.loads(metrics.read_text())
    assert f"AUC {facts['test']['auc']:.4f}" in result.output
    assert (facts["model"], facts["data"], facts["seed"], len(facts["validation"])) == (
        "dlrm",
        "movietweetings",
        0,
        2,
    )
    features = made_up().test.features
    assert torch.export.load(path).module()(features).shape == (150,)

    again = CliRunner().invoke(zoo, options)
    assert again.exit_code == 1
    assert "exists" in again.output
    assert "--force" in again.output
    assert CliRunner().invoke(zoo, [*options, "--force", "--ablation", "context"]).exit_code == 0
    assert set(json.loads(metrics.read_text())) == set(facts)


def test_command_lists_every_model() -> None:
    result = CliRunner().invoke(zoo, ["list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in ENTRIES)


def test_command_asks_for_the_folder_before_it_trains(tmp_path: Path) -> None:
    result = CliRunner().invoke(zoo, ["train", "dnn", "-o", str(tmp_path / "missing" / "x.pt2")])
    assert result.exit_code == 1
    assert "create it" in result.output


def test_command_refuses_an_unknown_model(tmp_path: Path) -> None:
    result = CliRunner().invoke(zoo, ["train", "gbdt", "-o", str(tmp_path / "x.pt2")])
    assert result.exit_code == 2


def test_command_says_where_the_coupon_data_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKOPT_DATA", raising=False)
    result = CliRunner().invoke(zoo, ["train", "dnn", "--data", "coupon", "-o", str(tmp_path / "x.pt2")])
    assert result.exit_code == 1
    assert "RANKOPT_DATA" in result.output
