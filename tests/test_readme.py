"""The README's program runs when pasted, and prints what the README says; its commands and links exist."""

import re
from pathlib import Path
from typing import Any

from rankopt.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_program_prints_the_sentence_of_the_readme(tmp_path: Path, capsys: Any) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    file = tmp_path / "ranker.py"
    file.write_text(program)
    names: dict[str, Any] = {"__name__": "ranker"}
    exec(compile(program, str(file), "exec"), names)
    printed = " ".join(capsys.readouterr().out.split())
    sentence = " ".join(shown.split("identical:")[0].split())
    assert sentence == names["ranker"].report.sentence
    assert printed.startswith(sentence)
    counted = [" ".join(line.split("~")[0].split()) for line in shown.splitlines() if "~" in line]  # times are tuned
    assert len(counted) == 3
    assert [row for row in counted if row not in printed] == []


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_commands_exist() -> None:
    commands = re.findall(r"^rankopt (\w+)", TEXT, re.MULTILINE)
    targets = re.findall(r"^make (\w+)", TEXT, re.MULTILINE)
    assert commands
    assert set(commands) <= set(main.commands)
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)
