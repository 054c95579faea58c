"""Bad input: one clear message on stderr, an exit code, and nothing written."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import with_json
from click.testing import Result
from small_ranker import Small, export_to
from torch import Tensor, nn

import rankopt


def assert_refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    for word in words:
        assert word in result.stderr


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "written" / "ranker.pt2"


@pytest.fixture
def optimize(run, output: Path):
    """Runs `optimize`, which is to be refused without a trace in the folder of its output."""
    output.parent.mkdir()

    def refused(model: Path, *options: Any, context: str = "user_*") -> Result:
        result: Result = run("optimize", model, "--context", context, "-o", output, *options)
        assert os.listdir(output.parent) == []
        return result

    return refused


def test_a_missing_file(optimize, tmp_path: Path) -> None:
    assert_refused(optimize(tmp_path / "missing.pt2"), 2, "missing.pt2' does not exist")


def test_no_model(optimize, tmp_path: Path) -> None:
    (tmp_path / "notes.pt2").write_text("a shopping list")
    assert_refused(optimize(tmp_path / "notes.pt2"), 1, "notes.pt2 is not a model", "torch.export.save")


def test_a_truncated_file(optimize, model: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt2").write_bytes(model.read_bytes()[:2000])
    assert_refused(optimize(tmp_path / "cut.pt2"), 1, "cut.pt2 is truncated")


def test_a_version_of_torch_that_cannot_be_read(optimize, model: Path, tmp_path: Path) -> None:
    def later(data: Any) -> None:
        data["schema_version"]["major"] = 99
        data["torch_version"] = "4.0"

    path = with_json(model, tmp_path / "later.pt2", "models/model.json", later)
    assert_refused(optimize(path), 1, "later.pt2 cannot be read", "written by torch 4.0")


def test_a_version_of_rankopt_that_cannot_be_read(run, model: Path, ranker: Path, tmp_path: Path) -> None:
    def later(data: Any) -> None:
        data["format"] = 99

    path = with_json(ranker, tmp_path / "later.pt2", "rankopt.json", later)
    assert_refused(run("show", path), 1, "format version 99", "readable: 1")
    assert_refused(run("verify", model, path), 1, "format version 99", "readable: 1")


def test_a_ranker_instead_of_a_model(optimize, ranker: Path) -> None:
    assert_refused(optimize(ranker), 1, "is an optimised ranker already")


def test_a_model_instead_of_a_ranker(run, model: Path) -> None:
    assert_refused(run("verify", model, model), 1, "not an optimised ranker", "rankopt optimize")
    assert_refused(run("show", model), 1, "not an optimised ranker")


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("usr_id", "'usr_id' matches no input"),
        ("user_id,user_*", "named twice"),
        ("x[:, 7]", "column 7"),
        ("x[:, ", "cannot be read"),
        ("*", "every input is context"),
    ],
)
def test_selectors(optimize, model: Path, context: str, words: str) -> None:
    assert_refused(optimize(model, context=context), 2, words)


def test_two_roles(optimize, model: Path) -> None:
    assert_refused(optimize(model, "--target", "user_id"), 2, "'user_id' is named twice", "(target)")


def test_no_context(run, model: Path, output: Path) -> None:
    assert_refused(run("optimize", model, "-o", output), 2, "Missing option '--context'")


def test_a_pass_that_does_not_exist(optimize, model: Path) -> None:
    assert_refused(optimize(model, "--no-pass", "magic"), 2, "there is no pass 'magic'", "linear")


def test_training_mode(optimize, tmp_path: Path) -> None:
    class WithDropout(Small):
        def forward(self, user_id: Tensor, item_id: Tensor, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(user_id, item_id, x), 0.5, self.training)

    path = export_to(tmp_path / "training.pt2", WithDropout().train())
    assert_refused(optimize(path), 1, "eval()")


def test_a_fixed_number_of_rows(optimize, module: Small, tmp_path: Path) -> None:
    rows = (torch.tensor([1, 2]), torch.tensor([3, 4]), torch.randn(2, 4))
    torch.export.save(torch.export.export(module, rows), tmp_path / "fixed.pt2")
    assert_refused(optimize(tmp_path / "fixed.pt2"), 1, "dynamic", "fix:")


def test_existing_output(run, model: Path, tmp_path: Path) -> None:
    output, facts = tmp_path / "ranker.pt2", tmp_path / "report.json"
    facts.write_text("precious")
    options = ("optimize", model, "--context", "user_*", "-o", output, "--json", facts)
    assert_refused(run(*options), 2, "report.json: it exists", "--force")
    assert not output.exists()
    assert run(*options, "--force").exit_code == 0
    assert_refused(run(*options), 2, "ranker.pt2: it exists", "--force")


def test_the_model_itself_as_output(run, model: Path) -> None:
    before = model.read_bytes()
    assert_refused(run("optimize", model, "--context", "user_*", "-o", model), 2, "it exists")
    assert model.read_bytes() == before


def test_a_folder_that_does_not_exist(run, model: Path, tmp_path: Path) -> None:
    result = run("optimize", model, "--context", "user_*", "-o", tmp_path / "missing" / "ranker.pt2")
    assert_refused(result, 2, "there is no folder")


def test_a_full_disk(optimize, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_refused(optimize(model), 2, "No space left on device", "Nothing was changed")


def test_a_file_that_may_not_grow(model: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = ("optimize", model, "--context", "user_*", "--no-verify", "-o", tmp_path / "ranker.pt2")
    done = subprocess.run(
        [sys.executable, "-m", "rankopt", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        env=os.environ | {"PYTHONPATH": str(Path(rankopt.__file__).parents[1])},
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_pickled_module_without_trust(optimize, tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 1).eval(), tmp_path / "module.pt")
    assert_refused(optimize(tmp_path / "module.pt"), 1, "runs code when it is read", "--trust")
    assert_refused(optimize(tmp_path / "module.pt", "--trust"), 2, "no example rows", "--example")


def test_a_state_dict(optimize, tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 1).state_dict(), tmp_path / "weights.pt")
    torch.save(torch.randn(3, 4), tmp_path / "rows.pt")
    result = optimize(tmp_path / "weights.pt", "--trust", "--example", tmp_path / "rows.pt")
    assert_refused(result, 1, "holds a OrderedDict, no model")


def test_examples_of_different_numbers_of_rows(optimize, model: Path, tmp_path: Path) -> None:
    torch.save((torch.tensor([1, 2, 3]), torch.tensor([1, 2]), torch.randn(2, 4)), tmp_path / "rows.pt")
    result = optimize(model, "--example", tmp_path / "rows.pt")
    assert_refused(result, 2, "'user_id' has 3", "'item_id' has 2")


def test_examples_that_are_none(optimize, model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.pt").write_text("three rows")
    assert_refused(optimize(model, "--example", tmp_path / "rows.pt"), 2, "holds no example rows")
    torch.save(nn.Linear(2, 2), tmp_path / "rows.pt")
    assert_refused(optimize(model, "--example", tmp_path / "rows.pt"), 2, "holds no example rows")


def test_a_model_with_other_inputs(run, ranker: Path, tmp_path: Path) -> None:
    rows = (torch.randn(4, 3), torch.randn(4, 3))
    dims = ({0: torch.export.Dim("rows")},) * 2
    program = torch.export.export(nn.Bilinear(3, 3, 1).eval(), rows, dynamic_shapes=dims)
    torch.export.save(program, tmp_path / "other.pt2")
    assert_refused(run("verify", tmp_path / "other.pt2", ranker), 2, "its inputs differ")


def test_debug_shows_what_happened(run, model: Path) -> None:
    result = run("--debug", "show", model)
    assert result.exit_code == 1
    assert not isinstance(result.exception, SystemExit)
