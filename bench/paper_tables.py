"""Do we reach the tables of the rank-aware paper? (Tkach, Context Features Are Cheap)

    python bench/paper_tables.py [--only table3 figure2 table4] [--seconds 600] [--threads 2 1]

Table 3, saved FLOPs of two families, by torch's counter on what is run, at three numbers of candidates, with the Gram
matrix counted as computed and as the pairs that are taken from it. The paper does not publish its perceptrons; those
here reproduce every percentage that it prints.

Figure 2, throughput of a DLRM over the number of context fields and of target fields, at several widths. Table 4, a
closed loop with 64 requests in flight on two backends: requests per second, p50 and p99, and the most requests per
second at which p99 stays within what the original has. One process each; writes bench/results/paper_tables.json.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from contenders import Scene, Scores, as_entry, mflop
from models import subject
from running import Clock, Run, heap_of, warm_heap
from torch import Tensor, nn

from rankopt.capture import CapturedModel
from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import alternatives
from rankopt.selectors import InputRole

# ---------------------------------------------------------------------------------------------------------- table 3

K, M, D = 27, 4, 128
"""The DLRM family: d_c = 3456 = 27 * 128 and d_t = 512 = 4 * 128."""
D_C, D_T, CROSSES = 514, 577, 4
"""The DCN family; field widths are mixed, so x_0 is one tensor."""
COUNTS = (200, 500, 1000)


class Interaction(nn.Module):
    """Dots of all pairs of fields from a full Gram matrix, side by side; alone, or read by a perceptron."""

    def __init__(self, hidden: Sequence[int] = (1024, 32)) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(K + M, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("pairs", torch.triu_indices(K + M, K + M, 1))
        self.top = perceptron(self.pairs.shape[1], hidden) if hidden else nn.Identity()

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([context, target], dim=1)[:, self.order]
        return self.top((x @ x.transpose(1, 2))[:, self.pairs[0], self.pairs[1]])


class PaperColumns(nn.Module):
    """The same as the paper counts it: the perceptron reads the dots of context fields and *all* products of target
    fields with everything, with themselves and twice among each other: 351 + 124 = 475 columns."""

    def __init__(self, hidden: Sequence[int] = (1024, 32)) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.triu_indices(K, K, 1))
        self.top = perceptron(self.pairs.shape[1] + M * (K + M), hidden) if hidden else nn.Identity()

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([context, target], dim=1)
        gram = x @ x.transpose(1, 2)
        return self.top(torch.cat([gram[:, self.pairs[0], self.pairs[1]], gram[:, K:].flatten(1)], dim=1))


class CrossNetwork(nn.Module):
    """Full-rank cross layers, and a deep network beside them; one unit reads both."""

    def __init__(self, crosses: int = CROSSES, deep: Sequence[int] = (512, 256, 128), head: bool = True) -> None:
        super().__init__()
        width = D_C + D_T
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(crosses))
        self.deep = perceptron(width, deep, last=not head) if deep else None
        self.head = nn.Linear(width * bool(crosses) + (deep[-1] if deep else 0), 1) if head else None

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = x0 = torch.cat([context, target], dim=1)
        for layer in self.crosses:
            x = x0 * layer(x) + x
        found = [x] if len(self.crosses) else []
        if self.deep is not None:
            found.append(self.deep(x0))
        both = torch.cat(found, dim=1)
        return both if self.head is None else self.head(both)


class RankAwareCrosses(nn.Module):
    """rDCN over one tensor: the context stream never sees the target. Without it, layers read c_0."""

    def __init__(self, stream: bool, deep: Sequence[int] = (512, 256, 128), crosses: int = CROSSES) -> None:
        super().__init__()
        self.context = nn.ModuleList(nn.Linear(D_C, D_C) for _ in range(crosses if stream else 0))
        self.mixed = nn.ModuleList(nn.Linear(D_C, D_T, bias=False) for _ in range(crosses))
        self.target = nn.ModuleList(nn.Linear(D_T, D_T) for _ in range(crosses))
        self.deep = perceptron(D_C + D_T, deep, last=True) if deep else None

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        c, t = context, target
        for i, (mixed, own) in enumerate(zip(self.mixed, self.target, strict=True)):
            c_next = context * self.context[i](c) + c if len(self.context) else c
            t, c = target * (mixed(c) + own(t)) + t, c_next
        both = torch.cat([c, t], dim=1)
        return both if self.deep is None else torch.cat([both, self.deep(torch.cat([context, target], dim=1))], dim=1)


def perceptron(width: int, hidden: Sequence[int], last: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Linear(hidden[-1], 1)] if last else []))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of Table 3: its percentages, and the models that they are counted on.

    `vanilla` is what the family's rows are compared with, where that is not the model itself.
    """

    name: str
    paper: dict[str, int]
    interaction: Callable[[], nn.Module]
    perceptron: Callable[[], nn.Module] | None
    whole: Callable[[], nn.Module]
    vanilla: dict[str, Callable[[], nn.Module]] | None = None
    passes: str = "all"
    dots: bool = False


CROSS_VANILLA = {
    "interaction": partial(CrossNetwork, deep=(), head=False),
    "FC": partial(CrossNetwork, crosses=0),
    "total": CrossNetwork,
}

ROWS = (
    Row("DCNv2 + FC", {"interaction": -18, "FC": -36, "total": -20}, *CROSS_VANILLA.values()),
    Row(
        "rDCN + FC",
        {"interaction": -72, "FC": -36, "total": -67},
        partial(RankAwareCrosses, True, ()),
        partial(CrossNetwork, crosses=0),
        partial(RankAwareCrosses, True),
        CROSS_VANILLA,
    ),
    Row(
        "rDCN without context stream + FC",
        {"interaction": -72, "FC": -36, "total": -67},
        partial(RankAwareCrosses, False, ()),
        partial(CrossNetwork, crosses=0),
        partial(RankAwareCrosses, False),
        CROSS_VANILLA,
    ),
    Row("FM", {"interaction": -87, "FC": 0, "total": -17}, partial(PaperColumns, ()), None, PaperColumns, dots=True),
    Row(
        "FM + FC",
        {"interaction": -87, "FC": -69, "total": -73},
        partial(PaperColumns, ()),
        None,
        PaperColumns,
        dots=True,
    ),
    Row("FM + FC, each pair once", {}, partial(Interaction, ()), None, Interaction, dots=True),
)


def table3(row: Row, clock: Clock) -> dict[str, Any]:
    """Saved FLOPs of interaction, perceptron and both, per number of candidates."""
    found: dict[str, Any] = {}
    parts = {"interaction": row.interaction, "FC": row.perceptron, "total": row.whole}
    for count in COUNTS:
        measured = {name: counted(make, count) for name, make in parts.items() if make is not None}
        if row.vanilla is not None:
            for name, make in row.vanilla.items():
                measured[name]["original"] = counted(make, count)["original"]
        found[str(count)] = with_pairs(measured, count) if row.dots else measured
    return {"paper": row.paper, "counted": found, "sentence": str({n: saving(f["total"]) for n, f in found.items()})}


def saving(counted: dict[str, float]) -> str:
    return f"{counted['rankopt'] / counted['original'] - 1:+.1%}"


def counted(make: Callable[[], nn.Module], candidates: int) -> dict[str, float]:
    """MFLOP of one request, of the original on tiled rows and of what rankopt makes of it with the fewest FLOPs."""
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    shapes = ((K, D), (M, D)) if isinstance(model, PaperColumns | Interaction) else ((D_C,), (D_T,))
    context = {"context": torch.randn(1, *shapes[0])}
    target = {"target": torch.randn(candidates, *shapes[1])}
    captured, roles = capture_with_roles(
        model, {"context": context["context"]}, {"target": torch.randn(7, *shapes[1])}, None
    )
    rows = context["context"].expand(candidates, *shapes[0]).contiguous(), target["target"]
    ranker = build(captured, roles, fewest(captured, roles, candidates))
    torch.testing.assert_close(ranker(context, target), model(*rows), rtol=1e-3, atol=1e-3)
    return {"original": mflop(partial(model, *rows)), "rankopt": mflop(partial(ranker, context, target))}


def fewest(captured: CapturedModel, roles: Sequence[InputRole], candidates: int) -> Any:
    """Of all plans the one with the fewest FLOPs: the table is about these, not about time."""
    return min(alternatives(captured, roles, candidates), key=lambda plan: plan.flops.at(candidates))


def with_pairs(measured: dict[str, dict[str, float]], count: int) -> dict[str, dict[str, float]]:
    """The perceptron as the difference of the whole and the interaction; and all again with pairs counted as pairs:
    each once, none with itself, whatever products were computed to get them."""
    interaction, total = measured["interaction"], measured["total"]
    of_fc = {name: total[name] - interaction[name] for name in total}
    fields = K + M
    pairs = {
        "original": 2e-6 * count * fields * (fields - 1) / 2 * D,
        "rankopt": 2e-6 * (K * (K - 1) / 2 + count * (M * K + M * (M - 1) / 2)) * D,
    }
    return {
        **measured,
        "FC": of_fc,
        "interaction, pairs": pairs,
        "total, pairs": {name: of_fc[name] + pairs[name] for name in pairs},
        "FM alone": {"original": total["original"], "rankopt": interaction["rankopt"] + of_fc["original"]},
    }


# --------------------------------------------------------------------------------------------------------- figure 2

FIELDS = ((8, 4), (12, 4), (16, 4), (20, 4), (24, 4), (8, 8), (8, 12), (8, 16), (8, 20), (8, 24))
WIDTHS = (128, 64, 16)
TOP = (1024, 32)


def figure2(width: int, points: Sequence[tuple[int, int]], candidates: int, clock: Clock) -> dict[str, Any]:
    """Requests per second of a DLRM in eager calls and under ONNX Runtime, for every number of fields."""
    threads, found = torch.get_num_threads(), {}
    warm_heap()
    for number, (context, target) in enumerate(points):
        scene = dlrm_scene(context, target, width, candidates)
        eager = {name: call for name, call in scene.eager().items() if name in ("original", "rankopt")}
        sessions = scene.onnxruntime(threads, ("original", "rankopt"))
        share = clock.share(len(points) - number) / 2
        with torch.no_grad():
            times = {"eager": heap_of(eager, share), "onnxruntime": heap_of(sessions, share)}
        found[f"{context},{target}"] = {
            backend: {name: 1e3 / timing.median for name, timing in of_backend.items()}
            for backend, of_backend in times.items()
        } | {"milliseconds": times}
    gains = {fields: f"{f['eager']['rankopt'] / f['eager']['original']:.2f}x" for fields, f in found.items()}
    return {"width": width, "candidates": candidates, "per second": found, "sentence": str(gains)}


def dlrm_scene(context: int, target: int, width: int, candidates: int) -> Scene:
    model = subject(f"dlrm {context},{target},{width}", "dlrm", context, target, embedding_dim=width, top=TOP)
    return Scene.of(as_entry(model), candidates)


# ---------------------------------------------------------------------------------------------------------- table 4

IN_FLIGHT = 64
STEPS = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
"""Numbers of requests in flight that are tried where the SLA asks for fewer."""


def table4(backend: str, candidates: int, clock: Clock) -> dict[str, Any]:
    """Throughput and latency of the original and of rankopt, under the same load."""
    scene = dlrm_scene(24, 4, 128, candidates)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many requests at once: one thread each, as many at once as there are processors
    if backend == "eager":
        warm_heap()
        calls = {name: call for name, call in scene.eager().items() if name in ("original", "rankopt")}
    else:
        calls = scene.onnxruntime(1, ("original", "rankopt"))
    share = clock.left / (len(calls) * 3)
    found = {name: closed_loop(call, IN_FLIGHT, threads, share) for name, call in calls.items()}
    sla = found["original"]["p99 ms"]
    at_sla = {"original": found["original"]}
    for in_flight in (*(IN_FLIGHT * n for n in (4, 3, 2)), *STEPS):
        loop = closed_loop(calls["rankopt"], in_flight, threads, share / 3)
        if loop["p99 ms"] <= sla or in_flight == 1:
            at_sla["rankopt"] = loop
            break
    change = {key: found["rankopt"][key] / found["original"][key] - 1 for key in ("per second", "p50 ms", "p99 ms")}
    change["per second at the original's p99"] = at_sla["rankopt"]["per second"] / found["original"]["per second"] - 1
    return {
        "candidates": candidates,
        "in flight": IN_FLIGHT,
        "64 in flight": found,
        "at the original's p99": at_sla,
        "change": change,
        "sentence": ", ".join(f"{name} {value:+.0%}" for name, value in change.items()),
    }


def closed_loop(call: Scores, in_flight: int, workers: int, seconds: float, least: int = 200) -> dict[str, float]:
    """`in_flight` clients, each of which sends its next request when the last one is answered, and `workers` that
    answer in the order of arrival. Latency includes waiting, as a client sees it."""
    waiting = [time.perf_counter()] * in_flight
    latencies: list[float] = []
    lock, begin = threading.Lock(), time.perf_counter()

    def work() -> None:
        with torch.no_grad():
            while True:
                with lock:
                    now = time.perf_counter()
                    if now - begin > seconds and len(latencies) >= least:
                        return
                    arrived = waiting.pop(0)
                call()
                with lock:
                    done = time.perf_counter()
                    latencies.append((done - arrived) * 1e3)
                    waiting.append(done)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled = latencies[min(in_flight, len(latencies) // 2) :]  # the first wait is shorter than the later ones
    p50, p99 = np.percentile(settled, [50, 99])
    rate = len(latencies) / (time.perf_counter() - begin)
    return {"in flight": in_flight, "per second": rate, "p50 ms": float(p50), "p99 ms": float(p99)}


def main(arguments: Sequence[str] | None = None) -> None:
    run = Run.of("paper_tables", __doc__, arguments)
    quick = run.options.quick
    threads = run.options.threads[:1] if quick else run.options.threads
    subjects: dict[str, Any] = {
        f"table3, {row.name}": (1, partial(table3, row)) for row in (ROWS[3:4] if quick else ROWS)
    }
    for count in threads:
        for backend in ("eager",) if quick else ("eager", "onnxruntime"):
            key = f"table4, {backend}, workers={count}"
            subjects[key] = count, partial(table4, backend, 16 if quick else 512)
        for width in (16,) if quick else WIDTHS:
            key = f"figure2, D={width}, threads={count}"
            subjects[key] = count, partial(figure2, width, FIELDS[:1] if quick else FIELDS, 16 if quick else 512)
    run.measure(subjects)


if __name__ == "__main__":
    main()
