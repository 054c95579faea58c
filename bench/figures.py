"""Plots of docs/benchmarks.md, as SVG files that come out the same from the same results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import most_threads
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankopt.zoo.plots import AFTER, BEFORE, save

COLOURS = ("#1f6fb4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d")

TIMES = (0.5, 1, 2, 5, 10)
"""Ratios that are marked on an axis of them."""


def draw(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Every plot for which there are results; returns the files."""
    drawings = {
        "figure2": lambda path: figure2(results["paper_tables"], path),
        "candidates": lambda path: candidates(results["sweeps"], path),
        "shapes": lambda path: shapes(results["sweeps"], path),
        "peers": lambda path: peers(results["peers"], path),
    }
    folder.mkdir(exist_ok=True)
    return [path for name, drawn in drawings.items() if drawn(path := folder / f"{name}.svg")]


def figure2(results: Mapping[str, Any], path: Path) -> bool:
    """Throughput over the number of fields, relative to the original with 8 and 4; a panel per axis, and backend."""
    runs = most_threads(results, "figure2")
    if not runs:
        return False
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True)
    for row, backend in zip(panels, ("eager", "onnxruntime"), strict=True):
        for axes, (place, label) in zip(
            row, ((0, "context fields K, M = 4"), (1, "target fields M, K = 8")), strict=True
        ):
            for found, colour in zip(runs, COLOURS, strict=False):
                per_second = {tuple(map(int, key.split(","))): of[backend] for key, of in found["per second"].items()}
                base = per_second[8, 4]["original"]
                points = sorted(key for key in per_second if key[1 - place] == (4, 8)[place])
                sizes = [key[place] for key in points]
                for who, style in (("original", "--"), ("rankopt", "-")):
                    values = [per_second[key][who] / base for key in points]
                    name = f"D = {found['width']}, {who}"
                    axes.plot(sizes, values, f"o{style}", color=colour, markersize=3, label=name)
                axes.set_xticks(sizes)
            axes.set_xlabel(label)
            axes.set_title(backend)
    panels[0][0].set_ylabel("requests per second, relative")
    panels[0][1].legend(fontsize=6)
    save(figure, path)
    return True


def candidates(results: Mapping[str, Any], path: Path) -> bool:
    """How many times faster, over the number of candidates."""
    sweeps = most_threads(results, "candidates")
    if not sweeps:
        return False
    figure = Figure(figsize=(7, 3), layout="constrained")
    for axes, backend in zip(figure.subplots(1, 2, sharey=True), ("eager", "onnxruntime"), strict=True):
        ratios(axes, sweeps, backend)
        axes.set_title(backend)
        axes.set_xlabel("candidates")
    figure.axes[0].set_ylabel("original's time / rankopt's")
    figure.axes[1].legend(fontsize=6)
    save(figure, path)
    return True


def shapes(results: Mapping[str, Any], path: Path) -> bool:
    """How many times faster, over the sizes of a model."""
    axes_of = {axis: most_threads(results, f"{axis}, ") for axis in ("context", "target", "width")}
    if not any(axes_of.values()):
        return False
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for axes, (axis, sweeps) in zip(figure.subplots(1, 3, sharey=True), axes_of.items(), strict=True):
        ratios(axes, sweeps, "eager")
        sizes = sorted({int(value) for sweep in sweeps for value in sweep["at"]})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel(f"fields of the {axis}" if axis != "width" else "width of a field")
    figure.axes[0].set_ylabel("original's time / rankopt's")
    figure.axes[0].legend(fontsize=6)
    save(figure, path)
    return True


def ratios(axes: Axes, sweeps: Sequence[Mapping[str, Any]], backend: str) -> None:
    for sweep, colour in zip(sweeps, COLOURS, strict=False):
        at = {int(value): of["ratios"][backend]["rankopt"] for value, of in sweep["at"].items()}
        axes.plot(
            list(at), list(at.values()), "o-", color=colour, markersize=3, label=sweep["model"].rpartition("/")[2]
        )
    axes.axhline(1.0, color=BEFORE, linewidth=1)
    axes.set_xscale("log")


def peers(results: Mapping[str, Any], path: Path) -> bool:
    """All contenders by model, in eager calls on the warm heap."""
    found = sorted(most_threads(results), key=lambda result: result["ratios"]["eager, warm heap"]["rankopt"])
    if not found:
        return False
    figure = Figure(figsize=(7, 0.8 + 0.19 * len(found)), layout="constrained")
    axes = figure.subplots()
    others = ("input tile", "once", "mari", "without sharing", "expert")
    for who, colour in (*zip(others, COLOURS[1:], strict=False), ("rankopt", AFTER)):
        of = [(result["ratios"]["eager, warm heap"].get(who), place) for place, result in enumerate(found)]
        known = [(ratio, place) for ratio, place in of if ratio is not None]
        axes.scatter(*zip(*known, strict=True), s=22 if who == "rankopt" else 9, color=colour, label=who)
    axes.axvline(1.0, color=BEFORE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(TIMES, [f"{times:g}x" for times in TIMES])
    axes.minorticks_off()
    axes.set_yticks(range(len(found)), [result["model"] for result in found])
    axes.set_xlabel("original's time / theirs")
    axes.legend(fontsize=6)
    save(figure, path)
    return True


if __name__ == "__main__":
    raise SystemExit("python bench/page.py draws them")
