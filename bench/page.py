"""The tables and plots of docs/benchmarks.md, from the files in bench/results.

    python bench/page.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; all else on the page is written by hand and left as it
is. Where a file is missing the page says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import figures
from cells import LOSS, geometric_mean, load, most_threads, number, of_threads, table, times
from compiler_tables import compile_growth, compile_ratios, fuzzed, predicted
from harness import RESULTS

from rankopt.zoo.table import markdown

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SERVED = ("eager", "onnxruntime")
BACKENDS = ("eager, fresh heap", "eager, warm heap", "onnxruntime", "inductor")


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


def headline(threads: int) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        rows = []
        for found in of_threads(load("headline", folder), threads):
            flops, ratios = found["mflop"], found["ratios"]
            cells = [
                " / ".join(times(ratios.get(backend, {}).get(who)) for who in ("rankopt", "expert"))
                for backend in BACKENDS[:3]
            ]
            plain = times(ratios["eager, warm heap"].get("without sharing"))
            work = f"{number(flops['original'])} -> {number(flops['rankopt'])}"
            rows.append([found["model"].partition("/")[2], f"{found['candidates']:,}", work, *cells, plain])
        head = ["model", "N", "MFLOP", *BACKENDS[:3], "plain"]
        return table(head, rows, "headline")

    return made


PEERS = ("vmap", "input tile", "once", "mari", "without sharing", "rankopt", "expert")


def peers(threads: int) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        everyone = of_threads(load("peers", folder), threads)
        rows = []
        for found in everyone:
            eager, onnx = found["ratios"]["eager, warm heap"], found["ratios"]["onnxruntime"]
            fresh = found["ratios"]["eager, fresh heap"].get("rankopt")
            rows.append(
                [
                    found["model"],
                    *(times(eager.get(who)) for who in PEERS),
                    times(fresh),
                    times(onnx.get("rankopt")),
                    times(onnx.get("expert")),
                ]
            )
        if rows:
            columns = [[found["ratios"]["eager, warm heap"].get(who) for found in everyone] for who in PEERS]
            columns.append([found["ratios"]["eager, fresh heap"].get("rankopt") for found in everyone])
            columns += [
                [found["ratios"]["onnxruntime"].get(who) for found in everyone] for who in ("rankopt", "expert")
            ]
            means = [[value for value in column if value is not None] for column in columns]
            rows.append(["geometric mean", *(times(geometric_mean(column)) if column else "-" for column in means)])
        return table(["model", *PEERS, "rankopt, fresh heap", "ONNX Runtime: rankopt", "expert"], rows, "peers")

    return made


def peer_facts(folder: Path) -> str:
    rows = []
    measured = most_threads(load("peers", folder))
    for found in measured:
        facts = found["facts"]
        who = [name for name in ("original", "once", "mari", "rankopt", "expert") if name in facts]
        of = {name: facts.get(name, {}) for name in ("original", "once", "mari", "rankopt", "expert")}
        errors = [fact["error"] for name, fact in facts.items() if name.endswith("rankopt")]
        rows.append(
            [
                found["model"],
                *(number(fact.get("mflop")) for fact in of.values()),
                *(
                    number(facts[name].get("peak_mb")) if name in who else "-"
                    for name in ("original", "rankopt", "expert")
                ),
                f"{facts['original']['error']:.0e}",
                f"{max(errors):.0e}",
            ]
        )
    head = ["model", "MFLOP: original", "once", "mari", "rankopt", "expert", "MB: original", "rankopt", "expert"]
    return table([*head, "error: original", "rankopt"], rows, "peers", measured)


def candidates_sweep(backend: str) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        found = most_threads(load("sweeps", folder), "candidates")
        counts = sorted({int(count) for sweep in found for count in sweep["at"]})
        rows = [
            [sweep["model"], *(times(_at(sweep, str(count), backend, "rankopt")) for count in counts)]
            for sweep in found
        ]
        if backend == "eager":
            who = "rankopt for 512"
            rows += [
                [f"{sweep['model']}, {who}", *(times(_at(sweep, str(count), backend, who)) for count in counts)]
                for sweep in found
            ]
        return table(["model", *(f"{count:,}" for count in counts)], rows, "sweeps", found)

    return made


def _at(sweep: Mapping[str, Any], value: str, backend: str, who: str) -> float | None:
    return sweep["at"].get(value, {}).get("ratios", {}).get(backend, {}).get(who)  # type: ignore[no-any-return]


def shapes_sweep(folder: Path) -> str:
    rows = []
    measured: list[dict[str, Any]] = []
    for axis in ("context", "target", "width"):
        found = most_threads(load("sweeps", folder), f"{axis}, ")
        measured += found
        for sweep in found:
            cells = ", ".join(f"{value}: {times(_at(sweep, value, 'eager', 'rankopt'))}" for value in sweep["at"])
            rows.append([axis, sweep["model"], cells])
    plot = "\n\n![Ratio over the sizes of a model](benchmarks/shapes.svg)" if rows else ""
    return table(["axis", "model", "ratio at"], rows, "sweeps", measured) + plot


def requests_sweep(folder: Path) -> str:
    measured = most_threads(load("sweeps", folder), "requests")
    rows = [
        [sweep["model"], value, *(times(of["ratios"]["eager"].get(who)) for who in ("original, one by one", "rankopt"))]
        for sweep in measured
        for value, of in sweep["at"].items()
    ]
    head = ["model", "requests of 100", "original, one by one", "rankopt, one by one"]
    return table(head, rows, "sweeps", measured)


def many_requests(folder: Path) -> str:
    rows = [
        [
            found["model"],
            found["kind"],
            str(found["requests"]),
            f"{found['rows']:,}",
            *(times(found["ratios"][backend][who]) for backend in SERVED for who in ("original", "one by one")),
        ]
        for found in most_threads(load("many_requests", folder))
    ]
    against = [f"{backend}: {who}" for backend in ("eager", "ONNX Runtime") for who in ("original", "one by one")]
    return table(["model", "batch", "requests", "rows", *against], rows, "many_requests")


def limits(folder: Path) -> str:
    who = ("original", "rankopt", "expert")
    rows = []
    measured = most_threads(load("limits", folder))
    for found in measured:
        of, reached = found["limits"], found["reached"]
        least = [f"{number(of[name]['least ms'])} ms" if name in of else "-" for name in who]
        shares = [
            f"{reached[backend][name]:.0%}" if name in reached[backend] else "-"
            for backend in ("eager", "onnxruntime")
            for name in who
        ]
        rows.append([found["model"], *least, f"{of['rankopt']['of memory']:.0%}", *shares])
    head = ["model", "least: original", "rankopt", "expert", "of it memory (rankopt)", "reached, eager: original"]
    return table([*head, "rankopt", "expert", "ONNX Runtime: original", "rankopt", "expert"], rows, "limits", measured)


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


def profiles(folder: Path) -> str:
    rows = []
    for key, found in load("profile_ops", folder).items():
        for backend, of_backend in found["summary"].items():
            for who in ("rankopt", "expert"):
                about, took = of_backend[who], found["milliseconds"][backend][who]["median"]
                dearest = ", ".join(f"{line['op']} {line['us']:,.0f}" for line in found["profiles"][backend][who][:4])
                rows.append(
                    [
                        key,
                        backend,
                        who,
                        f"{took:.2f} ms",
                        f"{about['ops']:.0f}",
                        f"{about['moving_us'] / about['us']:.0%}",
                        dearest,
                    ]
                )
    return table(["model", "backend", "who", "call", "ops", "only moves", "dearest ops, us"], rows, "profile_ops")


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
