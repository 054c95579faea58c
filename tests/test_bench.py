"""Benchmarks stay alive: a slice of the scripts, and the page that is written from what they measured.

Two scripts, or all of them with RANKOPT_SWEEP=1 (`make sweep`).
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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


@pytest.mark.parametrize(
    ("undisturbed", "rounds", "left_out"),
    [
        pytest.param([True], 3, 0, id="processors of their own"),
        pytest.param([True, False, False, True, True], 3, 3, id="a round beside a shared one does not count"),
        pytest.param([False], 2, 0, id="all rounds count where none would"),
    ],
)
def test_rounds_count_on_processors_of_their_own(
    undisturbed: list[bool], rounds: int, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import harness

    states = itertools.chain(undisturbed, itertools.repeat(undisturbed[-1]))
    monkeypatch.setattr(harness.processors, "undisturbed", lambda: next(states))
    monkeypatch.setattr(harness, "PATIENCE", 0)
    seconds = 60.0 if any(undisturbed) else 0.0
    found = harness.interleaved({"call": lambda: None}, rounds=3, seconds=seconds, least=2)
    assert (found["call"].rounds, found["call"].left_out) == (rounds * harness.TIMED, left_out * harness.TIMED)


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
    found = fuzz.search_rankers(range(3))
    assert found.drawn == 3
    assert found.outcomes == {"rewritten": 2, "failed": 1}
    assert sum(found.blocks.values()) >= 6
    (failure,) = found.failures
    assert failure.startswith("ranker 1: AssertionError planted")
    assert failure.count("Step(") == 1


def test_the_fuzzer_mixes_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import fuzz

    work = fuzz.alternating(*(fuzz.batches(kind, 40, 0) for kind in fuzz.SEARCHES))
    assert [kind for kind, _, _ in work] == ["rankers", "rankers", "programs", "rankers", "rankers"]
    assert sum(count for kind, _, count in work if kind == "rankers") == 40
    assert [batch.numbers for batch in work if batch.kind == "programs"] == [range(40)]


def test_the_fuzzer_goes_on_after_a_failure_in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import fuzz

    def fails(program: object, number: int) -> None:
        if number in (1, 3):
            raise ValueError("planted")

    monkeypatch.setattr(fuzz, "check_in_turn", fails)
    found = fuzz.search_programs(range(5))
    assert found.drawn == 5
    assert [failure.split("\n")[0] for failure in found.failures] == [
        "program 1: ValueError: planted",
        "program 3: ValueError: planted",
    ]
    assert all("r.call(" in failure for failure in found.failures)


def test_the_fuzzer_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Batches that ended are not done again, at the same commit; a line that was cut short is done again."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    import fuzz

    done: list[fuzz.Batch] = []

    def run(work: list[fuzz.Batch], jobs: int, minutes: float) -> Iterator[tuple[fuzz.Batch, fuzz.Found]]:
        for batch in work[:3]:
            done.append(batch)
            yield batch, fuzz.Found(batch.count, 1.0, ["a failure"], Counter(fine=batch.count))

    monkeypatch.setattr(fuzz, "run", run)
    monkeypatch.setattr(fuzz, "commit", lambda: "abc")
    monkeypatch.setattr("sys.argv", ["fuzz", "--programs", "1200", "--rankers", "20", "--folder", str(tmp_path)])
    assert fuzz.main() == 1
    with (tmp_path / fuzz.LOG).open("a") as file:
        file.write('{"commit": "abc", "bat')
    assert fuzz.main() == 1
    assert len(done) == len(set(done)) == 5
    total = json.loads((tmp_path / "fuzz.json").read_text())["results"]
    assert total["programs"]["drawn"] == 1200
    assert total["rankers"]["outcomes"] == {"fine": 20}
    assert len(total["rankers"]["found"]) == 2
    monkeypatch.setattr(fuzz, "commit", lambda: "other")
    fuzz.main()
    assert len(done) == 8
