"""What the tables of docs/benchmarks.md are made of: results that were kept, and how a figure is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS

from rankopt.zoo.table import markdown

LOSS = 0.97
"""A ratio below this counts as slower."""

Results = dict[str, Any]


def load(name: str, folder: Path = RESULTS) -> Results:
    """The results of a script that are none of its errors; empty where it was not run."""
    path = folder / f"{name}.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    return {key: result for key, result in results.items() if "error" not in result}


def of_threads(results: Results, threads: int, prefix: str = "") -> list[dict[str, Any]]:
    return [found for key, found in results.items() if found["threads"] == threads and key.startswith(prefix)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], script: str) -> str:
    return markdown(head, rows) if rows else f"Not measured yet: `python bench/{script}.py`."


def times(ratio: float | None) -> str:
    """A ratio, in bold where it is a loss."""
    if ratio is None:
        return "-"
    return f"**{ratio:.2f}x**" if ratio < LOSS else f"{ratio:.2f}x"


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def most_threads(results: Results, prefix: str = "") -> list[dict[str, Any]]:
    """What was measured with two threads; with one, where there is nothing else."""
    return of_threads(results, 2, prefix) or of_threads(results, 1, prefix)
