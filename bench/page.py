"""The tables and plots of docs/benchmarks.md, from the files in bench/results.

    python bench/page.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; all else on the page is written by hand and left as it
is. Where a file is missing the page says so. What a table shows is decided in `published_tables`, `speed_tables`,
`compiler_tables`, or here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import figures
from cells import LOSS, load
from compiler_tables import compile_growth, compile_ratios, fuzzed, predicted
from harness import RESULTS
from published_tables import figure2, ikbo, mari, table3, table4
from speed_tables import (
    backends,
    candidates_sweep,
    headline,
    limits,
    many_requests,
    peer_facts,
    peers,
    profiles,
    requests_sweep,
    shapes_sweep,
)

from rankopt.zoo.table import markdown

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renew(page: Path = PAGE, folder: Path = RESULTS) -> list[Path]:
    """Writes the tables into the page and the plots beside it; returns the files that were written."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]](folder)}\n\n{match[3]}"

    page.write_text(MARKED.sub(replaced, page.read_text()))
    plots = figures.draw(
        page.with_suffix(""), {name: load(name, folder) for name in ("paper_tables", "peers", "sweeps")}
    )
    return [page, *plots]


# ----------------------------------------------------------------------------------------------------------- tables


def machine_table(folder: Path) -> str:
    rows = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        if "results" not in document:
            continue  # the zoo's, of which its own page tells
        about, results = document["machine"], document["results"]
        entries = [found for found in results.values() if isinstance(found, dict)] if isinstance(results, dict) else []
        commits = dict.fromkeys(str(found["commit"]) for found in entries if "commit" in found)
        loads = [found["load"] for found in entries if "load" in found]
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        load = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "-"
        where = f"{about['processor']}, {about.get('cores', '-')} cores"
        rows.append([path.stem, where, versions, ", ".join(commits) or about["commit"], load])
    return markdown(["file", "machine", "versions", "commit", "load when measured"], rows)


def losses(folder: Path) -> str:
    """Everything in which rankopt is slower than the original, or than the expert."""
    rows = []
    for name in ("headline", "peers"):
        for key, found in load(name, folder).items():
            for backend, of in found["ratios"].items():
                ours, theirs = of.get("rankopt", 1.0), of.get("expert")
                if ours < LOSS:
                    rows.append([name, f"{key}, {backend}", "the original", f"{ours:.2f}x"])
                if theirs is not None and ours < LOSS * theirs:
                    rows.append([name, f"{key}, {backend}", "the expert", f"{ours / theirs:.2f}x"])
    for key, sweep in load("sweeps", folder).items():
        for value, at in sweep["at"].items():
            for backend, of in at["ratios"].items():
                if of["rankopt"] < LOSS:
                    rows.append(["sweeps", f"{key}, {value}, {backend}", "the original", f"{of['rankopt']:.2f}x"])
    if not rows and not load("headline", folder):
        return "Not measured yet."
    return markdown(["script", "what", "slower than", "by"], rows) if rows else "Nowhere in what was measured."


def gpu(folder: Path) -> str:
    found = load("gpu_ikbo", folder)
    rows = [
        [
            dtype,
            who,
            f"{facts['milliseconds']['median']:.3f}",
            f"{facts['error']:.1e}",
            "yes" if facts["accepted"] else "no",
        ]
        for dtype, of in found.get("types", {}).items()
        for who, facts in of.items()
    ]
    if not rows:
        return "Not measured: no GPU was at hand. `make bench-gpu` measures it where there is one."
    return f"On {found['device']}.\n\n" + markdown(["type", "who", "ms", "error against fp32", "accepted"], rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "machine": machine_table,
    "table3": table3,
    "table4": table4,
    "figure2": figure2,
    "headline": headline(2),
    "headline_one": headline(1),
    "peers": peers(2),
    "peers_one": peers(1),
    "peer_backends": backends,
    "peer_facts": peer_facts,
    "candidates": candidates_sweep("eager"),
    "candidates_onnx": candidates_sweep("onnxruntime"),
    "shapes": shapes_sweep,
    "requests": requests_sweep,
    "many_requests": many_requests,
    "limits": limits,
    "mari": mari,
    "ikbo": ikbo,
    "gpu": gpu,
    "profiles": profiles,
    "losses": losses,
    "predicted": predicted,
    "compile_ratios": compile_ratios,
    "compile_growth": compile_growth,
    "fuzzed": fuzzed,
}


if __name__ == "__main__":
    print(*renew(), sep="\n")
