"""Tables of docs/benchmarks.md about speed: models of the field, sweeps over their sizes, and how near the limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import geometric_mean, load, most_threads, number, of_threads, table, times

SERVED = ("eager", "onnxruntime")
BACKENDS = ("eager, fresh heap", "eager, warm heap", "onnxruntime", "inductor")
PEERS = ("vmap", "input tile", "once", "mari", "without sharing", "rankopt", "expert")
COMPARED = (
    *((who, "eager, warm heap", who) for who in PEERS),
    ("rankopt, fresh heap", "eager, fresh heap", "rankopt"),
    ("ONNX Runtime: rankopt", "onnxruntime", "rankopt"),
    ("expert", "onnxruntime", "expert"),
    ("torch.compile: rankopt", "inductor", "rankopt"),
    ("expert", "inductor", "expert"),
)
"""The columns of the table of peers: heading, backend and contender."""


def headline(threads: int) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        rows = []
        everyone = of_threads(load("headline", folder), threads)
        models = list(dict.fromkeys(found["model"] for found in everyone))
        everyone = sorted(everyone, key=lambda found: (models.index(found["model"]), found["candidates"]))
        backends = [backend for backend in BACKENDS if any(backend in found["ratios"] for found in everyone)]
        for found in everyone:
            flops, ratios = found["mflop"], found["ratios"]
            cells = [
                " / ".join(times(ratios.get(backend, {}).get(who)) for who in ("rankopt", "expert"))
                for backend in backends
            ]
            plain = times(ratios["eager, warm heap"].get("without sharing"))
            work = f"{number(flops['original'])} -> {number(flops['rankopt'])}"
            rows.append([found["model"].partition("/")[2], f"{found['candidates']:,}", work, *cells, plain])
        head = ["model", "N", "MFLOP", *backends, "plain"]
        return table(head, rows, "headline")

    return made


def peers(threads: int) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        everyone = of_threads(load("peers", folder), threads)
        compared = [(heading, backend, who) for heading, backend, who in COMPARED if _any(everyone, backend)]
        columns = [[found["ratios"].get(backend, {}).get(who) for found in everyone] for _, backend, who in compared]
        rows = [[found["model"], *map(times, cells)] for found, *cells in zip(everyone, *columns, strict=True)]
        if rows:
            means = [[value for value in column if value is not None] for column in columns]
            rows.append(["geometric mean", *(times(geometric_mean(column)) if column else "-" for column in means)])
        return table(["model", *(heading for heading, _, _ in compared)], rows, "peers")

    return made


def _any(everyone: Sequence[Mapping[str, Any]], backend: str) -> bool:
    return any(backend in found["ratios"] for found in everyone)


def backends(folder: Path) -> str:
    """Milliseconds of the tiled original and of rankopt, wherever they run."""
    measured = most_threads(load("peers", folder))
    ways = [backend for backend in BACKENDS[1:] if _any(measured, backend)]
    rows = [
        [
            found["model"],
            *(
                number(found["milliseconds"][backend][who]["median"]) if backend in found["milliseconds"] else "-"
                for who in ("original", "rankopt")
                for backend in ways
            ),
        ]
        for found in measured
    ]
    heads = [
        f"{who}: {ways[0]}" if backend == ways[0] else backend for who in ("original", "rankopt") for backend in ways
    ]
    return table(["model", *heads], rows, "peers", measured)


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


def _at(sweep: Mapping[str, Any], value: str, backend: str, who: str) -> float | None:
    return sweep["at"].get(value, {}).get("ratios", {}).get(backend, {}).get(who)  # type: ignore[no-any-return]


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
