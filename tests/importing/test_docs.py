"""The page on ONNX models names the operators that can be read, no more and no fewer."""

import re
from pathlib import Path

import rankopt.importing.model  # noqa: F401  it registers the operators
from rankopt.importing.operators import OPERATORS

PAGE = Path(__file__).parents[2] / "docs" / "onnx-models.md"


def test_the_page_names_every_operator() -> None:
    listed = PAGE.read_text().split("<!-- operators -->")[1].split("<!-- end -->")[0]
    assert re.findall(r"`(\w+)`", listed) == sorted(OPERATORS)
