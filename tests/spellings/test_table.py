"""The table of spellings in the docs names every test program, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "spellings.md"
NAMED = re.findall(r"`([a-z_/]+\.py)(?:::(\w+))?` \|$", PAGE.read_text(), re.MULTILINE)


def test_what_the_table_names_exists() -> None:
    for file, name in NAMED:
        assert (TESTS / file).is_file(), file
        assert not name or f"\nclass {name}(" in (TESTS / file).read_text(), f"{file} has no {name}"


def test_every_spelling_is_in_the_table() -> None:
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        tested = re.findall(r"^@spelled\((?:.*\n)*?class (\w+)", path.read_text(), re.MULTILINE)
        named = {name for file, name in NAMED if file == f"spellings/{path.name}"}
        assert set(tested) == named, path.name
