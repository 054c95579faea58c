"""Benchmarks stay alive: a slice of the scripts, and the page that is written from what they measured.

Two scripts, or all of them with RANKOPT_SWEEP=1 (`make sweep`).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ["mari", "paper_tables"]
if os.environ.get("RANKOPT_SWEEP"):
    SCRIPTS += ["headline", "peers", "sweeps", "profile_ops", "limits", "many_requests"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_slice_of_a_script(script: str, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "bench" / f"{script}.py", "--quick", "--seconds", "2", "--folder", tmp_path]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.json")
    results = json.loads(file.read_text())["results"]
    assert results
    assert not [f"{key}: {found['error']}" for key, found in results.items() if "error" in found]


def test_the_page_without_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import page

    copy = tmp_path / "benchmarks.md"
    shutil.copy(page.PAGE, copy)
    page.renew(copy, tmp_path / "nothing")
    assert "Not measured yet: `python bench/headline.py`." in copy.read_text()


@pytest.mark.filterwarnings("ignore")  # of what layers warn is not the subject
def test_the_fuzzer_counts_shrinks_and_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import fuzz

    def fails(ranker: object, turn: int) -> str:
        if turn == 1 and "Step(" in repr(ranker):
            raise AssertionError("planted: not the same")
        return "rewritten"

    monkeypatch.setattr(fuzz, "check_ranker", fails)
    found = fuzz.search_rankers(0, 3)
    assert found.drawn == 3
    assert found.outcomes == {"rewritten": 2, "failed": 1}
    assert sum(found.blocks.values()) >= 6
    (failure,) = found.failures
    assert failure.startswith("turn 1: AssertionError planted")
    assert failure.count("Step(") == 1


def test_the_fuzzer_mixes_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import fuzz

    work = list(fuzz.alternating(*(list(fuzz.batches(kind, 40, 0)) for kind in fuzz.SEARCHES)))
    assert [kind for kind, _, _ in work] == ["rankers", "rankers", "programs", "rankers", "rankers"]
    assert sum(count for kind, _, count in work if kind == "rankers") == 40
