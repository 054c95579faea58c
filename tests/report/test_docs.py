"""The page about reports shows what its program really prints."""

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reading-a-report.md"


def test_the_programs_run_and_print_the_sentence_of_the_page(tmp_path: Path, capsys: Any) -> None:
    text = PAGE.read_text()
    first, last = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (sentence,) = re.findall(r"## The sentence\n\n```text\n(.*?)\nidentical:", text, re.DOTALL)
    file = tmp_path / "model.py"
    file.write_text(first)
    names: dict[str, Any] = {"__name__": "model"}
    exec(compile(first, str(file), "exec"), names)
    printed = capsys.readouterr().out
    assert " ".join(sentence.split()) == names["ranker"].report.sentence
    assert printed.startswith(sentence)
    exec(last, names)
