"""A report as a JSON text: the same facts as in the terminal."""

from __future__ import annotations

import json

from rankopt.errors import FormatError
from rankopt.report.tree import Report


def dumps(report: Report) -> str:
    """The report as JSON."""
    return json.dumps(report.to_json(), indent=2, allow_nan=False)


def loads(text: str) -> Report:
    """The report that `dumps` wrote. Raises FormatError where the text is not one, or of another version."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise FormatError(f"not JSON: {error}.\n  fix: pass the text that dumps(report) returned") from error
    if not isinstance(data, dict):
        raise FormatError("a report is a JSON object.\n  fix: pass the text that dumps(report) returned")
    return Report.from_json(data)
