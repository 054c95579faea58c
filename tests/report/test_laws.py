"""The page of laws says what the rules say."""

import re
from pathlib import Path

from rankopt.report.laws import page

PAGE = Path(__file__).parents[2] / "docs" / "laws.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "the rules have changed: python -m rankopt.report.laws > docs/laws.md"


def test_what_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", page())
    assert links
    assert not [link for link in links if not (PAGE.parent / link).exists()]
