"""Tables of docs/benchmarks.md that stand beside those of papers: what they publish, and what was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import load, number, table, times


def table3(folder: Path) -> str:
    rows = []
    for key, found in load("paper_tables", folder).items():
        if not key.startswith("table3"):
            continue
        for part in ("interaction", "interaction, pairs", "FC", "total", "total, pairs"):
            alone = key == "table3, FM"
            if alone and part not in ("interaction", "interaction, pairs", "total"):
                continue
            of = {
                count: counted["FM alone" if alone and part == "total" else part]
                for count, counted in found["counted"].items()
                if part in counted
            }
            if of:
                paper = found["paper"].get(part)
                saved = [f"{counted['rankopt'] / counted['original'] - 1:+.1%}" for counted in of.values()]
                rows.append([key.removeprefix("table3, "), part, "-" if paper is None else f"{paper:+d}%", *saved])
        if "DCNv2" in key:
            saved = [
                f"{_rest(counted, 'rankopt') / _rest(counted, 'original') - 1:+.1%}"
                for counted in found["counted"].values()
            ]
            rows.append(["DCNv2 + FC", "interaction, last layer folded into the head", "-", *saved])
    return table(["variant", "part", "paper", "N = 200", "500", "1,000"], rows, "paper_tables")


def _rest(counted: Mapping[str, Any], who: str) -> float:
    return float(counted["total"][who] - counted["FC"][who])


def table4(folder: Path) -> str:
    rows = []
    for key, found in load("paper_tables", folder).items():
        if not key.startswith("table4"):
            continue
        change = found["change"]
        rows += [
            [
                key.removeprefix("table4, "),
                who,
                number(of["per second"]),
                f"{of['p50 ms']:,.0f}",
                f"{of['p99 ms']:,.0f}",
                str(of["in flight"]),
            ]
            for who, of in (
                *found["64 in flight"].items(),
                ("rankopt, p99 of the original", found["at the original's p99"]["rankopt"]),
            )
        ]
        rows.append(
            ["", "change", f"{change['per second']:+.0%}", f"{change['p50 ms']:+.0%}", f"{change['p99 ms']:+.0%}", ""]
        )
    if rows:
        rows.append(["paper, FM + FC", "change", "+88% (at its SLA)", "-30%", "-33%", ""])
    return table(["backend", "who", "requests per second", "p50 ms", "p99 ms", "in flight"], rows, "paper_tables")


def figure2(folder: Path) -> str:
    rows = []
    for key, found in load("paper_tables", folder).items():
        if key.startswith("figure2"):
            for backend in ("eager", "onnxruntime"):
                per_second = found["per second"]
                base = next(iter(per_second.values()))[backend]["original"]
                cells = [
                    f"{of[backend]['original'] / base:.2f} -> {of[backend]['rankopt'] / base:.2f}"
                    for of in per_second.values()
                ]
                rows.append([key.removeprefix("figure2, "), backend, *cells])
    points = ["8, 4", "12, 4", "16, 4", "20, 4", "24, 4", "8, 8", "8, 12", "8, 16", "8, 20", "8, 24"]
    if rows:
        paper = {0: "1.00 -> 1.13", 4: "0.34 -> 0.69", 9: "0.29 -> 0.31"}
        rows.append(["paper", "TF Serving", *(paper.get(place, "-") for place in range(len(points)))])
    return table(["width", "backend", *points], rows, "paper_tables")


def mari(folder: Path) -> str:
    rows = []
    for key, found in load("mari", folder).items():
        if key.startswith("mari"):
            for count, of in found["at"].items():
                fewer = of["mflop"]["neat, original"] / of["mflop"]["neat, rankopt"]
                rows.append(
                    [
                        key.removeprefix("mari, "),
                        f"{int(count):,}",
                        f"{fewer:.2f}x",
                        *(times(of["gain"][layout]) for layout in ("neat", "fragmented")),
                        *(f"{of['loss'][who]:+.0%}" for who in ("rankopt", "by hand")),
                    ]
                )
    return table(
        ["layer", "N", "fewer FLOPs", "gain, neat", "fragmented", "fragments cost rankopt", "by hand"], rows, "mari"
    )


def ikbo(folder: Path) -> str:
    rows = [
        [
            key,
            f"{found['mflop']['original'] / found['mflop']['rankopt']:.2f}x",
            *(times(found["ratios"]["eager"][who]) for who in ("rankopt", "by hand")),
        ]
        for key, found in load("mari", folder).items()
        if key.startswith("ikbo")
    ]
    return table(["one user, 70 candidates", "fewer FLOPs", "rankopt", "by hand"], rows, "mari")
