"""`rankopt refresh`: new weights in a saved ranker; and `--state-dtype`."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import Result
from small_ranker import Small

import rankopt
from rankopt.errors import StageError
from rankopt.refreshing import put


@pytest.fixture(scope="module")
def other() -> Small:
    """What `other_model` holds."""
    torch.manual_seed(9)
    return Small().eval()


def scores(path: Path) -> torch.Tensor:
    with torch.no_grad():
        return rankopt.load(path)({"user_id": torch.tensor([3])}, {"item_id": torch.arange(4), "x": torch.ones(4, 4)})


def expected(model: Small) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([3, 3, 3, 3]), torch.arange(4), torch.ones(4, 4))


@pytest.mark.parametrize("form", ["pt", "safetensors", "pt2"])
def test_checkpoints(
    run, ranker: Path, model: Path, other_model: Path, other: Small, form: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / f"new.{form}"
    if form == "pt":
        torch.save(other.state_dict(), checkpoint)
    elif form == "safetensors":
        safetensors.torch.save_file(other.state_dict(), checkpoint)
    else:
        checkpoint = other_model
    options = [] if form == "pt2" else ["--model", model]
    result: Result = run("refresh", ranker, checkpoint, *options, "-o", tmp_path / "fresh.pt2")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("retrained model: identical: float64")
    torch.testing.assert_close(scores(tmp_path / "fresh.pt2"), expected(other))
    assert rankopt.load(tmp_path / "fresh.pt2").weights_hash() != rankopt.load(ranker).weights_hash()
    report = rankopt.load(tmp_path / "fresh.pt2").report
    assert report is not None
    assert report.verification is None


def test_without_the_model_it_says_so(run, ranker: Path, other: Small, tmp_path: Path) -> None:
    torch.save(other.state_dict(), tmp_path / "new.pt")
    result = run("refresh", ranker, tmp_path / "new.pt", "-o", tmp_path / "fresh.pt2", "--stages")
    assert result.exit_code == 0, result.output
    assert "compared with itself in float64 only; --model FILE" in result.stderr
    facts = json.loads((tmp_path / "fresh.stages.json").read_text())
    assert facts["weights"] != rankopt.load(ranker).weights_hash()


def nested(weights: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": 3, "state_dict": weights}


def without_bias(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in weights.items() if name != "output.bias"}


def changed(name: str, change: Any) -> Any:
    return lambda weights: weights | {name: change(weights[name])}


def broken(number: float) -> Any:
    return lambda tensor: tensor.clone().index_fill_(0, torch.tensor([3]), number)


def lost(weights: dict[str, Any]) -> dict[str, Any]:
    return weights | {"users.weight": torch.full((50, 64), 3e38), "hidden.weight": torch.full((128, 76), 3e38)}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (nested, 1, "holds more than weights: epoch, state_dict"),
        (without_bias, 1, "missing ['output.bias']"),
        (lambda w: w | {"output.bias": torch.ones(2)}, 1, "output.bias has the shape [2], expected [1]"),
        (lambda w: [1], 1, "holds a list"),
        (changed("items.weight", torch.Tensor.to_sparse), 1, "items.weight is torch.sparse_coo"),
        (changed("items.weight", lambda x: x.to("meta")), 1, "items.weight has no data"),
        (changed("hidden.weight", lambda x: x.to(torch.complex64)), 1, "hidden.weight is torch.complex64"),
        (changed("hidden.weight", lambda x: x.long()), 1, "hidden.weight is torch.int64"),
        (changed("hidden.weight", lambda x: x > 0), 1, "hidden.weight is torch.bool"),
        (changed("users.weight", broken(float("nan"))), 1, "64 NaN in users.weight"),
        (changed("hidden.bias", broken(float("-inf"))), 1, "1 infinite in hidden.bias"),
        (changed("hidden.bias", lambda x: x.double() + 1e300), 1, "128 infinite in hidden.bias"),
        (lost, 3, "far from the same in float64"),
    ],
)
def test_checkpoints_that_do_not_fit(
    run, ranker: Path, other: Small, change: Any, code: int, words: str, tmp_path: Path
) -> None:
    torch.save(change(other.state_dict()), tmp_path / "new.pt")
    result = run("refresh", ranker, tmp_path / "new.pt", "-o", tmp_path / "fresh.pt2")
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "fix:" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.pt"]


@pytest.mark.parametrize("ending", ["fresh.onnx", "fresh.aoti.pt2"])
def test_nothing_is_half_written(run, ranker: Path, other: Small, ending: str, tmp_path: Path) -> None:
    torch.save(lost(other.state_dict()), tmp_path / "new.pt")
    (tmp_path / ending).write_text("the one that serves")
    result = run("refresh", ranker, tmp_path / "new.pt", "-o", tmp_path / ending, "--force")
    assert result.exit_code == 3
    assert (tmp_path / ending).read_text() == "the one that serves"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["new.pt", ending])


def test_weights_that_nobody_reads(run, ranker: Path, model: Path, other: Small, tmp_path: Path) -> None:
    """Said, where only the ranker is known: the model may have a weight that no score depends on."""
    torch.save(other.state_dict() | {"gate.weight": torch.ones(2)}, tmp_path / "new.pt")
    result = run("refresh", ranker, tmp_path / "new.pt", "-o", tmp_path / "fresh.pt2")
    assert result.exit_code == 0, result.output
    assert "not read by the ranker: gate.weight" in result.stderr
    result = run("refresh", ranker, tmp_path / "new.pt", "--model", model, "-o", tmp_path / "again.pt2")
    assert result.exit_code == 1
    assert "not in the model: gate.weight" in result.stderr
    assert not (tmp_path / "again.pt2").exists()


def test_the_weights_of_another_ranker(run, ranker: Path, other: Small, tmp_path: Path) -> None:
    torch.save(other.state_dict(), tmp_path / "new.pt")
    assert run("refresh", ranker, tmp_path / "new.pt", "-o", tmp_path / "fresh.pt2").exit_code == 0
    result = run("refresh", ranker, tmp_path / "fresh.pt2", "-o", tmp_path / "again.pt2")
    assert result.exit_code == 0, result.output
    torch.testing.assert_close(scores(tmp_path / "again.pt2"), expected(other))


@pytest.mark.parametrize(
    ("name", "options"),
    [("fast.onnx", []), ("fast.pt2", ["--stages"]), ("fast.pt2", ["--many", "dense"]), ("fast.aoti.pt2", [])],
)
def test_exported_files_are_exported_again(
    run, ranker: Path, other: Small, name: str, options: list[str], tmp_path: Path
) -> None:
    torch.save(other.state_dict(), tmp_path / "new.pt")
    assert run("export", ranker, "-o", tmp_path / name, *options).exit_code == 0
    exported = tmp_path / ("fast.context.pt2" if "--stages" in options else name)
    for arguments in ((exported, tmp_path / "new.pt"), (ranker, exported)):
        result = run("refresh", *arguments, "-o", tmp_path / "fresh.pt2")
        assert result.exit_code == 1, result.output
        assert "prepared weights" in result.stderr
        assert "fix: rankopt refresh" in result.stderr
    assert not (tmp_path / "fresh.pt2").exists()


def test_infinities_that_a_weight_had_before(tmp_path: Path) -> None:
    class Popular(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("log_seen", torch.tensor([0.0, float("-inf"), -1.0]))
            self.linear = torch.nn.Linear(2, 1)

        def forward(self, a: torch.Tensor, b: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
            return self.linear(a * b).squeeze(1) + self.log_seen[item]

    rows = (torch.randn(5, 2), torch.randn(5, 2), torch.arange(5) % 3)
    ranker = rankopt.optimize(Popular().eval(), ["a"], example_inputs=rows)
    weights = Popular().state_dict()
    put(ranker, weights | {"log_seen": torch.tensor([float("-inf"), 0.0, -1.0])})
    with pytest.raises(StageError, match="1 NaN in log_seen"):
        put(ranker, weights | {"log_seen": torch.tensor([float("nan"), 0.0, -1.0])})


def test_nothing_is_changed_where_one_weight_does_not_fit(ranker: Path, other: Small) -> None:
    loaded = rankopt.load(ranker)
    before = {name: tensor.clone() for name, tensor in loaded.weights().items()}
    last = list(before)[-1]
    with pytest.raises(StageError, match="sparse"):
        loaded.load_original_state_dict(other.state_dict() | {last: before[last].detach().to_sparse()})
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.weights().items())


def test_files_that_are_no_checkpoint(run, ranker: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("a shopping list")
    (tmp_path / "notes.safetensors").write_text("a shopping list")
    for name in ("notes.pt", "notes.safetensors"):
        result = run("refresh", ranker, tmp_path / name, "-o", tmp_path / "fresh.pt2")
        assert result.exit_code == 1, result.output
        assert "fix:" in result.stderr
    result = run("refresh", model, model, "-o", tmp_path / "fresh.pt2")
    assert result.exit_code == 1
    assert "not an optimised ranker" in result.stderr
    result = run("refresh", ranker, model, "-o", ranker)
    assert result.exit_code == 2
    assert "it exists" in result.stderr


def test_a_mask_that_the_ranker_was_made_for(tmp_path: Path) -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.tensor([1.0, 0.0, 1.0]))
            self.register_buffer("shift", torch.ones(3), persistent=False)
            self.linear = torch.nn.Linear(2, 1)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.linear((a * b + self.shift)[:, self.kept > 0]).squeeze(1)

    rows = (torch.randn(5, 3), torch.randn(5, 3))
    ranker = rankopt.optimize(Masked().eval(), ["a"], example_inputs=rows)
    ranker.save(tmp_path / "ranker.pt2")
    fresh = Masked().eval()
    for given in (ranker, rankopt.load(tmp_path / "ranker.pt2")):
        given.load_original_state_dict(fresh.state_dict())  # which has no `shift`
        assert given.verify(model=fresh, example_inputs=rows).identical
        with pytest.raises(StageError, match="kept"):
            given.load_original_state_dict(fresh.state_dict() | {"kept": torch.tensor([0.0, 1.0, 1.0])})


def test_a_rounded_state(run, model: Path, ranker: Path, tmp_path: Path) -> None:
    options = ("--context", "user_*", "--state-dtype", "float16")
    result = run("optimize", model, *options, "-o", tmp_path / "half.pt2")
    assert result.exit_code == 0, result.output
    assert "NOT exact, state in float16: scores off by up to" in result.stdout
    assert "state rounded to float16" in run("show", tmp_path / "half.pt2").stdout
    verified = run("verify", model, tmp_path / "half.pt2", "--json", tmp_path / "facts.json")
    assert verified.stdout.startswith("NOT exact, state in float16")
    assert json.loads((tmp_path / "facts.json").read_text())["state_dtype"] == "float16"
    exported = run("export", ranker, "-o", tmp_path / "half.pt2", "--stages", "--state-dtype", "float16")
    assert exported.stdout.startswith("torch.export: NOT exact, state in float16")
    facts = json.loads((tmp_path / "half.stages.json").read_text())
    assert {tensor["dtype"] for tensor in facts["state"]} == {"float16"} == {facts["state_dtype"]}
    assert facts["state_bytes"] == 256
