"""The commands, as they are meant to be used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result

import rankopt
from rankopt.cli.reading import split_selectors
from rankopt.many.calls import Many
from rankopt.report.tree import Report


def test_optimize_writes_a_ranker_and_reports(run, model: Path, module, tmp_path: Path) -> None:
    output, facts = tmp_path / "ranker.pt2", tmp_path / "report.json"
    arguments = ("--context", "user_*,x[:, [0, 2]]", "--target", "item_id", "--candidates", 100)
    result = run("optimize", model, *arguments, "-o", output, "--json", facts)
    assert result.exit_code == 0, result.output
    assert "FLOP per request at 100 candidates" in result.stdout
    assert "identical: float64" in result.stdout
    assert f"{output}: {output.stat().st_size:,} bytes" in result.stderr
    ranker = rankopt.load(output)
    assert ranker.report == Report.from_json(json.loads(facts.read_text()))
    context = {"user_id": torch.tensor([3]), "x": torch.tensor([[1.0, 2.0]])}
    target = {"item_id": torch.tensor([5, 6]), "x": torch.tensor([[3.0, 4.0], [5.0, 6.0]])}
    rows = torch.tensor([[1.0, 3.0, 2.0, 4.0], [1.0, 5.0, 2.0, 6.0]])
    with torch.no_grad():
        expected = module(torch.tensor([3, 3]), target["item_id"], rows)
    torch.testing.assert_close(ranker(context, target), expected)


def test_verification_can_be_left_out(run, model: Path, tmp_path: Path) -> None:
    result = run("optimize", model, "--context", "user_*", "--no-verify", "-o", tmp_path / "r.pt2")
    assert result.exit_code == 0
    assert "identical" not in result.stdout


def test_a_range_of_candidates_keeps_several_plans(run, model: Path, tmp_path: Path) -> None:
    ranker, fast = tmp_path / "ranker.pt2", tmp_path / "fast.onnx"
    arguments = ("--context", "user_*,x[:, [0, 2]]", "--candidates", "1-20000")
    result = run("optimize", model, *arguments, "-o", ranker)
    assert result.exit_code == 0, result.output
    assert "Plans by the number of candidates" in result.stdout
    assert len(rankopt.load(ranker).interface.ranges) > 1
    shown = run("show", ranker)
    assert "a ranker for 1-20,000 candidates" in shown.stdout
    assert "for 1-" in shown.stdout
    result = run("export", ranker, "-o", fast, "--candidates", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("ONNX Runtime: identical")


def test_explain_writes_nothing(run, model: Path, tmp_path: Path) -> None:
    before = sorted(os.listdir(model.parent))
    result = run("explain", model, "--context", "user_*", "--nodes")
    assert result.exit_code == 0, result.output
    assert "By node" in result.stdout
    labels = run("explain", model, "--context", "user_*", "--labels")
    assert "rank-2" in labels.stdout
    assert "user_id" in labels.stdout
    assert sorted(os.listdir(model.parent)) == before


def test_explain_as_json(run, model: Path, tmp_path: Path) -> None:
    result = run("explain", model, "--context", "user_*", "--json", "-")
    assert Report.from_json(json.loads(result.stdout)).candidates == 512
    run("explain", model, "--context", "user_*", "--json", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(result.stdout)


def test_passes_are_switched_off(run, model: Path) -> None:
    def once_per_request(*options: str) -> float:
        result = run("explain", model, "--context", "user_*", "--json", "-", *options)
        return Report.from_json(json.loads(result.stdout)).after.flops.once

    assert once_per_request() > 0
    assert once_per_request("--no-pass", "linear") == 0
    assert once_per_request("--pass", "elementwise,data_movement") == 0


def test_verify(run, model: Path, ranker: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    options = ("--requests", 2, "--candidates", 0, "--candidates", 50, "--json", facts)
    result = run("verify", model, ranker, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("identical: float64")
    found = json.loads(facts.read_text())
    assert found["identical"] is True
    assert found["candidates"] == [0, 0, 50, 50]


def test_verify_finds_another_model(run, other_model: Path, ranker: Path, tmp_path: Path) -> None:
    reproduction = tmp_path / "request.pt"
    result = run("verify", other_model, ranker, "--candidates", 30, "--reproduction", reproduction)
    assert result.exit_code == 3
    assert "does not give the scores of the original" in result.stderr
    request = torch.load(reproduction, weights_only=True)
    assert request["target"]["item_id"].shape == (30,)


def test_show(run, model: Path, ranker: Path) -> None:
    result = run("show", ranker)
    assert result.exit_code == 0, result.output
    assert "context  user_id" in result.stdout
    assert "FLOP per request at 512 candidates" in result.stdout
    assert json.loads(run("show", ranker, "--json", "-").stdout)["candidates"] == 512


def test_a_pickled_module_with_trust(run, module, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(4, 1).eval(), tmp_path / "module.pt")
    torch.save(torch.randn(8, 4), tmp_path / "rows.pt")
    options = ("--context", "input[:, :2]", "--example", tmp_path / "rows.pt", "--trust")
    result = run("optimize", tmp_path / "module.pt", *options, "-o", tmp_path / "ranker.pt2")
    assert result.exit_code == 0, result.output
    checked = run(
        "verify",
        tmp_path / "module.pt",
        tmp_path / "ranker.pt2",
        "--example",
        tmp_path / "rows.pt",
        "--trust",
    )
    assert checked.exit_code == 0, checked.output


def test_a_new_process(model: Path, tmp_path: Path) -> None:
    def rankopt_(*arguments: object) -> Result | subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rankopt", *map(str, arguments)]
        root = Path(rankopt.__file__).parents[1]
        return subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)}, check=False
        )

    done = rankopt_("optimize", model, "--context", "user_*", "-o", tmp_path / "ranker.pt2")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "\x1b[" not in done.stdout + done.stderr  # neither colours nor spinners in a pipe
    refused = rankopt_("show", model)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("Error: ")


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from rankopt.cli import main\n"
        "assert CliRunner().invoke(main, ['optimize', '--help']).exit_code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    root = Path(rankopt.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(root)})


def test_version(run) -> None:
    assert rankopt.__version__ in run("--version").stdout


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["a", "b"], ["a", "b"]),
        (["a, b,c"], ["a", "b", "c"]),
        (["x[:, [0, 3]],u*"], ["x[:, [0, 3]]", "u*"]),
        (["x[:, 3"], ["x[:, 3"]),
        ([",", ""], []),
    ],
)
def test_selectors_are_split_at_commas_outside_of_brackets(given: list[str], read: list[str]) -> None:
    assert split_selectors(given) == read


def test_html_pages(run, model: Path, ranker: Path, tmp_path: Path) -> None:
    for name, arguments in {
        "explain": ("explain", model, "--context", "user_*"),
        "optimize": ("optimize", model, "--context", "user_*", "--no-verify", "-o", tmp_path / "other.pt2"),
        "show": ("show", ranker),
        "diff": ("diff", ranker),
    }.items():
        page = tmp_path / f"{name}.html"
        result = run(*arguments, "--html", page)
        assert result.exit_code == 0, result.output
        assert page.read_text().startswith("<!doctype html>")
        refused = run(*arguments, "--html", page)
        assert refused.exit_code == 2
        assert "it exists" in refused.stderr


def test_diff(run, model: Path, ranker: Path, tmp_path: Path) -> None:
    alone = run("diff", ranker)
    assert alone.exit_code == 0, alone.output
    assert "model -> served" in alone.stdout
    assert "hidden" in alone.stdout
    report = tmp_path / "report.json"
    run("explain", model, "--context", "user_*", "--no-pass", "linear", "--json", report)
    two = run("diff", report, ranker, "--json", "-")
    assert two.exit_code == 0, two.output
    found = json.loads(two.stdout)
    assert found["modules"][0]["name"] == "hidden"
    old, new = found["modules"][0]["flops"]
    assert old[0] == new[0]
    assert new[1] < old[1]


def test_diff_of_what_is_no_ranker(run, model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "report.json"
    damaged.write_text("{}")
    for path, message in ((model, "is neither a saved ranker nor a report"), (damaged, "cannot be read")):
        result = run("diff", path)
        assert result.exit_code == 1
        assert message in result.stderr
        assert "fix: " in result.stderr
    assert run("diff", model, model, model).exit_code == 2
    assert run("diff").exit_code == 2


def test_verify_many_requests_in_one_call(run, model: Path, ranker: Path) -> None:
    result = run("verify", model, ranker, "--many", "3", "--candidates", "4", "--candidates", "9")
    assert result.exit_code == 0, result.output
    assert "3 requests in one call: identical: float64" in result.stdout


def test_verify_many_requests_that_differ(run, model: Path, ranker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Many.scores
    monkeypatch.setattr(Many, "scores", lambda *given, **index: tuple(x + 1 for x in honest(*given, **index)))
    result = run("verify", model, ranker, "--many", "2", "--json", "-")
    assert result.exit_code == 3
    assert '"identical": false' in result.stdout
    assert "2 requests in one call do not have the scores of the original" in result.stderr
