"""Plots of the zoo's page, as SVG files that come out the same from the same results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams.update({"svg.hashsalt": "rankopt", "svg.fonttype": "none", "font.size": 8})

BEFORE, AFTER = "#b0b0b0", "#1f6fb4"


def plot_saving(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """kFLOP per candidate of every model before and after, the dearest on top."""
    ordered = sorted(runs, key=lambda run: run["flops_before"])
    figure = Figure(figsize=(7, 0.8 + 0.19 * max(1, len(ordered))), layout="constrained")
    axes = figure.subplots()
    for place, run in enumerate(ordered):
        before, after = run["flops_before"] / 1e3, run["flops_after"] / 1e3
        axes.plot([after, before], [place, place], color=BEFORE, linewidth=1, zorder=1)
        axes.scatter([before], [place], color=BEFORE, s=14, zorder=2)
        axes.scatter([after], [place], color=AFTER, s=14, zorder=3)
    axes.set_yticks(range(len(ordered)), [run["model"] for run in ordered])
    if ordered:
        axes.set_xscale("log")
    axes.set_xlabel("kFLOP per candidate, at 512 candidates: as trained (grey), rewritten (blue)")
    save(figure, path)


def plot_sweeps(sweeps: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """AUC over kFLOP per candidate along each scaling axis, before and after."""
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    panels = figure.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
    for axes, (axis, points) in zip(panels, sweeps.items(), strict=True):
        auc = [run["auc"] for run in points]
        for key, color in (("flops_before", BEFORE), ("flops_after", AFTER)):
            spread = [run["spread"] for run in points]
            axes.errorbar(
                [run[key] / 1e3 for run in points], auc, spread, fmt="o-", color=color, markersize=3, linewidth=1
            )
        for run in points:
            place = run["flops_after"] / 1e3, run["auc"]
            axes.annotate(str(run["at"]), place, textcoords="offset points", xytext=(2, 3))
        axes.set_title(axis)
        axes.set_xlabel("kFLOP per candidate")
    figure.axes[0].set_ylabel("AUC")
    save(figure, path)


def plot_decomposition(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The share of work that is saved, by splitting alone and by all laws: of the interaction layer, and of all."""
    figure = Figure(figsize=(7, 0.8 + 0.17 * max(1, len(runs))), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, ("interaction", "whole"), strict=True):
        for place, run in enumerate(reversed(runs)):
            if part in run:
                split, least = (max(0.0, 1 - run[part][name] / run[part]["before"]) for name in ("split", "least"))
                axes.plot([split, least], [place, place], color=BEFORE, linewidth=1, zorder=1)
                axes.scatter([split], [place], color=BEFORE, s=14, zorder=2)
                axes.scatter([least], [place], color=AFTER, s=14, zorder=3)
        axes.set_xlim(-0.03, 1.03)
        axes.set_title("interaction layer alone" if part == "interaction" else "whole model")
        axes.set_xlabel("work saved: split (grey), all laws (blue)")
    panels[0].set_yticks(range(len(runs)), [run["model"] for run in reversed(runs)])
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
