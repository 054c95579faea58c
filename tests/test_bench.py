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
