"""What saved rankers and reports say: of themselves, and of what changed between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankopt import saved
from rankopt.archive import Kind, kind_of
from rankopt.errors import FormatError
from rankopt.interface import Interface, Range
from rankopt.report import json as report_json
from rankopt.report.changes import Changes, changes
from rankopt.report.tree import Report
from rankopt.selectors import Role


def describe(ranker: Path) -> tuple[str, Report | None]:
    """What a saved ranker says of itself, and its report. Graph and weights are not read."""
    metadata = saved.read_metadata(ranker)
    interface, versions = metadata.interface, metadata.versions
    lines = [
        f"{ranker}: a ranker for {_served(interface)} candidates, {ranker.stat().st_size:,} bytes",
        f"by rankopt {versions['rankopt']} with torch {versions['torch']}, {_plans(interface)}",
        f"weights {metadata.weights}",
    ]
    if metadata.state_dtype is not None:
        lines.append(f"state rounded to {str(metadata.state_dtype).removeprefix('torch.')}: the scores are not exact")
    width = max(len(info.name) for info in interface.inputs)
    for role, rows in ((Role.CONTEXT, "1"), (Role.TARGET, "N")):
        for info in interface.expected(role):
            shape = "scalar" if info.shape is None else f"[{', '.join([rows, *map(str, info.shape)])}]"
            dtype = str(info.dtype).removeprefix("torch.")
            lines.append(f"  {role.value:7}  {info.name:{width}}  {dtype:8}  {shape}")
    report = None if metadata.report is None else Report.from_json(metadata.report)
    return "\n".join(lines), report


def _served(interface: Interface) -> str:
    return str(Range(interface.ranges[0].first, interface.ranges[-1].last))


def _plans(interface: Interface) -> str:
    if len(interface.ranges) == 1:
        return f"policy '{interface.policy}'"
    return "policies " + ", ".join(f"'{span.policy}' for {span}" for span in interface.ranges)


def compare(files: Sequence[Path]) -> Changes:
    """What changed, by module: in one saved ranker or report, or from the first to the second."""
    return changes([read_report(path) for path in files], [str(path) for path in files])


def read_report(path: Path) -> Report:
    """The report in a saved ranker, or in a JSON file that `--json` wrote. Raises FormatError where there is none."""
    if path.suffix.lower() == ".json":
        try:
            return report_json.loads(path.read_text(encoding="utf-8"))
        except (FormatError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} cannot be read: {error}") from error
    if kind_of(path) is not Kind.RANKER:
        raise FormatError(
            f"{path} is neither a saved ranker nor a report.\n"
            "  expected: what `rankopt optimize -o` wrote, or the .json of `rankopt explain --json`\n"
            f"  fix: rankopt explain {path} --context ... --json report.json"
        )
    report = describe(path)[1]
    if report is None:
        raise FormatError(f"{path} was saved without a report.\n  fix: optimize the model again")
    return report
