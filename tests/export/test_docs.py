"""The page about files for serving: its programs run, and print what it says."""

import re
from pathlib import Path
from typing import Any

import pytest

from rankopt.cli import main

TEXT = (Path(__file__).parents[2] / "docs" / "export.md").read_text()


def test_its_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "model"}
    for i, program in enumerate(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)):
        file = tmp_path / f"block_{i}.py"
        file.write_text(program)
        exec(compile(program, str(file), "exec"), names)
    printed = capsys.readouterr().out
    (rounded,) = re.findall(r"```text\n(.*?)\n```", TEXT, re.DOTALL)
    assert "True (1, 2, 37, 1000)" in printed
    assert rounded in printed
    assert "['large.onnx', 'large.onnx.data']" in printed


def test_its_commands_exist() -> None:
    assert set(re.findall(r"\$ rankopt (\w+)", TEXT)) <= set(main.commands)
