"""The page of laws is what the rules say."""

import runpy
from pathlib import Path

from rankopt.rules import RULES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current_and_whole() -> None:
    text = (DOCS / "laws.md").read_text(encoding="utf-8")
    assert text == runpy.run_path(str(DOCS / "laws.py"))["page"](), "run `make laws`"
    assert all(f"| `{rule.apply.__name__}` |" in text for rule in RULES.values())
    assert all((DOCS.parent / "tests" / "laws" / f"test_{rule.family}.py").exists() for rule in RULES.values())
    assert "| softmax over rows; softmax over one element" in text  # a refusal of a helper
