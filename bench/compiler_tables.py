"""Tables about the compiler itself: its estimates, what optimising costs, what fuzzing found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import load, number, table
from prediction import BACKENDS

CLOSE = 1.05
"""A program that takes at most this many times as long as the best is as good as the best."""


def predicted(folder: Path) -> str:
    """How well estimated speedups rank with measured ones, and how often the program picked is as good as the best."""
    rows = []
    for backend in BACKENDS:
        models = [found for found in load("prediction", folder).values() if found.get("backend") == backend]
        for count in sorted({found["candidates"] for found in models}):
            of_count = [found for found in models if found["candidates"] == count]
            picked = [losses(found) for found in of_count]
            noise = [apart for found in of_count if (apart := twice(found)) is not None]
            rows.append(
                [
                    backend,
                    f"{count:,}",
                    str(len(of_count)),
                    f"{spearman([pair for found in of_count for pair in speedups(found)]):.3f}",
                    f"{spearman([speedups(found, found['picked'])[0] for found in of_count]):.3f}",
                    f"{sum(loss <= CLOSE for loss in picked) / len(picked):.0%}",
                    f"{max(picked):.2f}x",
                    f"{sum(apart <= CLOSE for apart in noise) / len(noise):.0%}, {max(noise):.2f}x" if noise else "-",
                ]
            )
    head = [
        "backend", "N", "models", "Spearman, all programs", "those picked", "as good as the best", "worst pick",
        "one program, twice",
    ]  # fmt: skip
    return table(head, rows, "prediction")


def speedups(found: dict[str, Any], only: str | None = None) -> list[tuple[float, float]]:
    """Estimated and measured speedups over the unchanged program, of the others or of one."""
    plans, base = found["plans"], found["plans"][found["unchanged"]]
    return [
        (base["estimated"] / plan["estimated"], base["measured"] / plan["measured"])
        for name, plan in plans.items()
        if (name != found["unchanged"] if only is None else name == only)
    ]


def losses(found: dict[str, Any]) -> float:
    """How many times as long as the best the program takes that was picked, compared once more where that was done."""
    if "loss" in found:
        return float(found["loss"])
    measured = {name: plan["measured"] for name, plan in found["plans"].items()}
    return measured[found["picked"]] / min(measured.values())


def twice(found: dict[str, Any]) -> float | None:
    """How many times as long as the other the slower one takes of two equal programs; None where one was measured."""
    if "again" not in found:
        return None
    first, again = found["plans"][found["picked"]]["measured"], found["again"]
    return max(first, again) / min(first, again)


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def compile_ratios(folder: Path) -> str:
    """optimize() against torch.export alone."""
    rows = [
        [name, f"{of['export_s']:.1f}", f"{of['optimize_s']:.1f}", f"{of['ratio']:.1f}x"]
        for name, of in load("compile_time", folder).items()
        if "ratio" in of
    ]
    return table(["model", "torch.export, s", "optimize(), s", "ratio"], rows, "compile_time")


def compile_growth(folder: Path) -> str:
    """Processor seconds by the size of the graph."""
    rows = [
        [name.split()[0], *(number(of[key]) for key in ("nodes", "emitted", "capture_s", "rest_s", "optimize_s"))]
        for name, of in load("compile_nodes", folder).items()
    ]
    head = ["model", "nodes", "of them left", "torch.export, s", "all else, s", "optimize(), s"]
    return table(head, rows, "compile_time")


def fuzzed(folder: Path) -> str:
    """What was drawn, and what was found."""
    found = load("fuzz", folder)
    rows = [
        [kind, f"{of['drawn']:,}", number(of["seconds"]), str(of["failures"])]
        for kind, of in found.items()
        if isinstance(of, dict) and "drawn" in of
    ]
    return table(["kind", "drawn", "seconds", "failures"], rows, "fuzz")
