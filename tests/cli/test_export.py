"""`rankopt export`, and `rankopt optimize` with another ending."""

import json
from pathlib import Path

import numpy
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx_graphs import keras

from rankopt.importing.model import import_onnx


def scores_of(path: Path, feed: dict[str, torch.Tensor]) -> torch.Tensor:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    return torch.from_numpy(scores)


FEED = {"user_id": torch.tensor([3]), "item_id": torch.tensor([5, 6]), "x": torch.ones(2, 4)}


def expected(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.tensor([3, 3]), FEED["item_id"], FEED["x"])


def test_optimize_writes_what_the_ending_says(run, model: Path, module, tmp_path: Path) -> None:
    facts = tmp_path / "report.json"
    result = run("optimize", model, "--context", "user_*", "-o", tmp_path / "fast.onnx", "--json", facts)
    assert result.exit_code == 0, result.output
    assert "ONNX Runtime: identical: float64" in result.stdout
    assert "(at 1, 2, 37, 1,000 candidates)" in " ".join(result.stdout.split())
    assert "fast.onnx: " in result.stderr
    assert json.loads(facts.read_text())["candidates"] == 512
    torch.testing.assert_close(scores_of(tmp_path / "fast.onnx", FEED), expected(module))


def test_export_in_stages(run, ranker: Path, module, tmp_path: Path) -> None:
    result = run("export", ranker, "-o", tmp_path / "fast.onnx", "--stages")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "fast.stages.json").read_text())
    state = scores_of(tmp_path / "fast.context.onnx", {"user_id": FEED["user_id"]})
    (name,) = (tensor["name"] for tensor in facts["state"])
    target = {name: state, "item_id": FEED["item_id"], "x": FEED["x"]}
    torch.testing.assert_close(scores_of(tmp_path / "fast.candidate.onnx", target), expected(module))


def test_export_for_the_clients_that_there_are(run, ranker: Path, module, tmp_path: Path) -> None:
    result = run("export", ranker, "-o", tmp_path / "fast.pt2", "--signature", "rows")
    assert result.exit_code == 0, result.output
    assert "torch.export: " in result.stdout
    program = torch.export.load(tmp_path / "fast.pt2")
    with torch.no_grad():
        scores = program.module()(torch.tensor([3, 3]), FEED["item_id"], FEED["x"])
    torch.testing.assert_close(scores, expected(module))
    again = run("export", ranker, "-o", tmp_path / "fast.pt2", "--signature", "rows")
    assert again.exit_code == 2
    assert "it exists" in again.stderr


@pytest.mark.parametrize(
    ("output", "options", "words"),
    [
        ("fast.tflite", (), "no format has this ending"),
        ("fast.onnx", ("--stages", "--signature", "rows"), "stages take a request in two parts"),
        ("missing/fast.onnx", (), "there is no folder"),
    ],
)
def test_usage(run, model: Path, ranker: Path, tmp_path: Path, output: str, options: tuple, words: str) -> None:
    for command in (("export", ranker), ("optimize", model, "--context", "user_*")):
        result = run(*command, "-o", tmp_path / output, *options)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_disagrees(run, ranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ort.InferenceSession.run
    monkeypatch.setattr(
        ort.InferenceSession, "run", lambda self, names, feed: [2 * score for score in honest(self, names, feed)]
    )
    result = run("export", ranker, "-o", tmp_path / "fast.onnx")
    assert result.exit_code == 3
    assert "ONNX Runtime does not give the scores of the ranker, so nothing was written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_instead_of_a_ranker(run, model: Path, tmp_path: Path) -> None:
    result = run("export", model, "-o", tmp_path / "fast.onnx")
    assert result.exit_code == 1
    assert "not an optimised ranker" in result.stderr


def test_an_onnx_model_in(run, tmp_path: Path) -> None:
    made = keras()
    onnx.save(made, tmp_path / "model.onnx")
    numpy.savez(tmp_path / "rows.npz", **{n: t.numpy() for n, t in import_onnx(made).example_rows().items()})
    for options in ((), ("--example", tmp_path / "rows.npz")):
        result = run("optimize", tmp_path / "model.onnx", "--context", "user*", "-o", tmp_path / "f.onnx", *options)
        assert result.exit_code == 0, result.output
        assert "ONNX Runtime: identical" in result.stdout
        (tmp_path / "f.onnx").unlink()
    assert run("optimize", tmp_path / "model.onnx", "--context", "user*", "-o", tmp_path / "r.pt2").exit_code == 0
    result = run("verify", tmp_path / "model.onnx", tmp_path / "r.pt2")
    assert result.exit_code == 0, result.output
    made.graph.node[0].op_type = "Mystery"
    onnx.save(made, tmp_path / "other.onnx")
    result = run("optimize", tmp_path / "other.onnx", "--context", "user*", "-o", tmp_path / "f.onnx")
    assert result.exit_code == 1
    assert "Mystery: 'Gather_user'" in result.stderr
    assert not (tmp_path / "f.onnx").exists()


def test_many_requests_per_call(run, ranker: Path, module, tmp_path: Path) -> None:
    result = run("export", ranker, "-o", tmp_path / "many.onnx", "--many", "lengths")
    assert result.exit_code == 0, result.output
    assert "in calls of 1, 3, 5 requests" in " ".join(result.stdout.split())
    feed = FEED | {"user_id": torch.tensor([3, 7, 4]), "lengths": torch.tensor([0, 1, 1])}
    with torch.no_grad():
        scores = module(torch.tensor([7, 4]), FEED["item_id"], FEED["x"])
    torch.testing.assert_close(scores_of(tmp_path / "many.onnx", feed), scores)


def test_many_requests_and_rows_of_the_original(run, ranker: Path, tmp_path: Path) -> None:
    result = run("export", ranker, "-o", tmp_path / "many.onnx", "--many", "dense", "--signature", "rows")
    assert result.exit_code == 2
    assert "they cannot hold many" in result.stderr
    assert list(tmp_path.iterdir()) == []
