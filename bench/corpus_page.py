"""docs/corpus.md, written from bench/results/corpus.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

SLOWER = 0.97
"""A ratio below this counts as slower."""

BACKENDS = {"eager": "eager", "onnxruntime": "ONNX Runtime", "inductor": "Inductor"}

INTRODUCTION = """\
# The corpus

Models that other people wrote, and the zoo's, put through `rankopt.optimize`: 20 context and 6 target fields that
interleave, width 16, vocabularies of 100 to 1,000 ids, histories of 20 items. deepctr-torch packs all of a row into
columns of one float tensor. Weights are random, at the scale of trained ones. `make corpus` measures everything and
writes this page from `bench/results/corpus.json`.
"""

LEGEND = """\
**float64** is the largest error of the rewritten scores in float64 against the original module in float64, relative to
the largest score; **float32** how many times further from that truth they are in float32 than the original's own.
Identical means at most 1e-9 and 2, at 2 and at 300 candidates. **MFLOP** are the matrix products and convolutions of
one request with 512 candidates, before and after, by torch's counter; = marks a model that the plan leaves unchanged.
**Ratios** are the original's time on tiled rows over the ranker's, medians of interleaved calls, each ranker optimised
for the number of candidates at which it is measured; tiling is not counted. A dash: not measured, or the original does
not run there.

A packed row of deepctr-torch comes to a ranker as two, of context and of target columns; the original is given it
ready-made. Of the 50 to 130 microseconds that one candidate takes under ONNX Runtime, putting it together costs 2 to 4.
Columns that are cast and cut together make up for them.

A run that leaves a backend or a number of candidates out keeps what an earlier one has measured: hence several commits.
Under Inductor neither side was measured on loops over 325 pairs (ONN, PNN, FiBiNET): the original FiBiNET alone was not
compiled after five minutes. AutoInt at 10 candidates is left unchanged: compiled for any number of rows, the original
keeps its scale, a float attribute, as an input, and with it escapes torch's fused attention, which the ranker gets. By
torch.compile's own defaults both get it.
"""


def page(document: dict[str, Any]) -> str:
    """The page for the results and the machine of `document`."""
    results = list(document["results"].values())
    libraries = list(dict.fromkeys(result["library"] for result in results))
    commits = dict.fromkeys(commit for result in results for commit in _commits(result))
    sections = [INTRODUCTION, _summary(results), _machine(document["machine"], list(commits)), LEGEND]
    sections += [_library(name, [r for r in results if r["library"] == name]) for name in libraries]
    sections += [_refused(results), _failed(results)]
    return "\n".join(section for section in sections if section)


def _commits(result: dict[str, Any]) -> list[str]:
    """At which a model was measured; a backend may be of an earlier one."""
    cells = [cell for row in result.get("timings", {}).values() for cell in row.values()]
    return [result["commit"], *(cell["commit"] for cell in cells if "commit" in cell)]


def _summary(results: Sequence[dict[str, Any]]) -> str:
    outcomes = Counter(result["outcome"] for result in results)
    captured = [result for result in results if result["outcome"] == "captured"]
    identical = sum(result["identical"] for result in captured)
    lines = [
        f"{len(results)} models: {outcomes['captured']} captured, {outcomes['refused']} refused for a documented"
        f" reason, {outcomes['failed']} failed. Identical: {identical} of {len(captured)}."
    ]
    for backend, title in BACKENDS.items():
        ratios = [
            row[backend]["ratio"]
            for result in captured
            for row in result.get("timings", {}).values()
            if "ratio" in row.get(backend, {})
        ]
        if ratios:
            slower = sum(ratio < SLOWER for ratio in ratios)
            lines.append(
                f"{title}: {slower} of {len(ratios)} ratios are below {SLOWER}, the lowest is {min(ratios):.2f}."
            )
    return "\n".join(lines) + "\n"


def _machine(machine: dict[str, Any], commits: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['threads']} threads, Python {machine['python']}; {versions};"
        f" commit {', '.join(commits)}.\n"
    )


def _library(name: str, results: Sequence[dict[str, Any]]) -> str:
    captured = [result for result in results if result["outcome"] == "captured"]
    if not captured:
        return ""
    counts = sorted({int(count) for result in captured for count in result.get("timings", {})})
    backends = [
        (key, title)
        for key, title in BACKENDS.items()
        if any(key in row for result in captured for row in result.get("timings", {}).values())
    ]
    title = ["model", "float64", "float32", "MFLOP", *(f"{title} at N = {_counts(counts)}" for _, title in backends)]
    rows = [_row(result, counts, [key for key, _ in backends]) for result in captured]
    return f"## {name}\n\n" + _table(title, rows)


def _row(result: dict[str, Any], counts: Sequence[int], backends: Sequence[str]) -> list[str]:
    mflop = result["mflop"]
    timings = result.get("timings", {})
    different = "" if result["identical"] else " **not identical**"
    return [
        f"{result['name']}{different}",
        "-" if result["float64_error"] is None else f"{result['float64_error']:.0e}",
        f"{result['float32_ratio']:.1f}x",
        f"{_short(mflop['before'])} -> {_short(mflop['after'])}{' =' if result['plan'] == 'unchanged' else ''}",
        *(" / ".join(_ratio(timings.get(str(count), {}).get(backend, {})) for count in counts) for backend in backends),
    ]


def _ratio(found: dict[str, Any]) -> str:
    if "ratio" not in found:
        return "-"
    text = f"{found['ratio']:.2f}"
    return f"**{text}**" if found["ratio"] < SLOWER else text


def _short(mflop: float) -> str:
    return f"{mflop:,.0f}" if mflop >= 100 else f"{mflop:.1f}" if mflop >= 1 else f"{mflop:.2f}"


def _counts(counts: Sequence[int]) -> str:
    return " / ".join(f"{count:,}" for count in counts)


def _refused(results: Sequence[dict[str, Any]]) -> str:
    rows = [
        [f"{r['library']}/{r['name']}", r["reason"], f"`{r['line']}`"] for r in results if r["outcome"] == "refused"
    ]
    return "## Refused\n\n" + _table(["model", "reason", "line"], rows) if rows else ""


def _failed(results: Sequence[dict[str, Any]]) -> str:
    rows = [[f"{r['library']}/{r['name']}", r["reason"]] for r in results if r["outcome"] == "failed"]
    return "## Failed\n\n" + _table(["model", "what happened"], rows) if rows else ""


def _table(title: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [title, ["---"] * len(title), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
