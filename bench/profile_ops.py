"""Where does the time go? Per op, of the rewritten models and of their hand-written versions.

    python bench/profile_ops.py [--only dlrm] [--candidates 512] [--threads 2 1] [--seconds 300] [--top 12]

Eager by torch.profiler, ONNX Runtime by its own profiler: microseconds per request, median over the calls, of every
op and shape. Profiling costs a few microseconds per op, so sums exceed the time of a call; shares are what counts. On
the warm heap, so that ops are charged for what they do. Writes bench/results/profile_ops.json.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from contenders import Scene, Scores, entries
from running import Clock, Run, heap_of, warm_heap
from torch.profiler import ProfilerActivity, profile

MODELS = ("headline/dlrm", "headline/dcnv2", "headline/autoint", "headline/mlcc", "zoo/din")
WHO = ("rankopt", "expert", "original")
MOVES = frozenset(
    {"copy_", "cat", "stack", "contiguous", "clone", "index_select", "index"}
    | {"Transpose", "Concat", "Gather", "GatherND", "Expand", "Reshape", "Slice", "Split", "Tile"}
)
"""Ops that compute nothing; look-ups of embeddings are apart."""

Lines = list[dict[str, Any]]
"""Ops with their shapes, the dearest first: calls per request, and microseconds per request."""


KEPT = 20
"""Ops of each profile that are kept; the summary is of all."""


def measure(key: str, candidates: int, clock: Clock) -> dict[str, Any]:
    """Both profiles of one model, for everybody."""
    scene = Scene.of(entries()[key], candidates)
    calls = {name: call for name, call in scene.eager().items() if name in WHO}
    threads = torch.get_num_threads()
    warm_heap()
    found: dict[str, Any] = {"model": key, "candidates": candidates}
    with torch.no_grad():
        times = {"eager": heap_of(calls, clock.share(3))}
        profiles = {"eager": {name: eager_profile(call) for name, call in calls.items()}}
        profiles["onnxruntime"] = {name: onnx_profile(scene, name, threads) for name in calls}
        times["onnxruntime"] = heap_of(scene.onnxruntime(threads), clock.share(1))
    dearest = {
        backend: {name: lines[:KEPT] for name, lines in of_backend.items()} for backend, of_backend in profiles.items()
    }
    found |= {"milliseconds": times, "profiles": dearest}
    summaries = {
        backend: {name: summary(lines) for name, lines in of_backend.items()}
        for backend, of_backend in profiles.items()
    }
    sentence = "; ".join(
        f"{backend} {name} {times[backend][name].median:.2f} ms" for backend in times for name in calls
    )
    return {**found, "summary": summaries, "sentence": sentence}


def summary(lines: Lines) -> dict[str, float]:
    """Microseconds per request in all, in ops that only move, and the number of ops."""
    moving = sum(line["us"] for line in lines if line["op"] in MOVES)
    total = sum(line["us"] for line in lines)
    return {"us": total, "moving_us": moving, "ops": sum(line["calls"] for line in lines)}


def eager_profile(call: Scores, calls: int = 20) -> Lines:
    """Self time of every op, by shapes of what it reads."""
    for _ in range(5):
        call()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(calls):
            call()
    lines = [
        {
            "op": event.key.removeprefix("aten::"),
            "shapes": [shape for shape in event.input_shapes if shape],
            "calls": event.count / calls,
            "us": event.self_cpu_time_total / calls,
        }
        for event in profiler.key_averages(group_by_input_shape=True)
    ]
    return sorted(lines, key=lambda line: -line["us"])


def onnx_profile(scene: Scene, name: str, threads: int, calls: int = 20) -> Lines:
    """Median time of every node of the optimised graph, with its shapes."""
    module, inputs = scene.exported(name)
    assert module is not None
    with tempfile.TemporaryDirectory() as folder:

        def profiled(options: ort.SessionOptions) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")

        run = scene.session(module, inputs, threads, profiled)
        for _ in range(calls + 5):
            run(inputs)
        events = json.loads(Path(run.session.end_profiling()).read_text())
    nodes: dict[str, list[float]] = defaultdict(list)
    about: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            nodes[name].append(event["dur"])
            shapes = [next(iter(shape.values())) for shape in event["args"].get("input_type_shape", [])]
            about[name] = {"op": event["args"]["op_name"], "node": name, "shapes": shapes}
    lines = [{**about[name], "calls": 1, "us": statistics.median(found[5:])} for name, found in nodes.items()]
    return sorted(lines, key=lambda line: -line["us"])


def report(results: Mapping[str, Any], top: int) -> str:
    """The dearest ops, as text."""
    found = []
    for key, result in results.items():
        if "profiles" not in result:
            continue
        for backend, profiles in result["profiles"].items():
            for name, lines in profiles.items():
                about = result["summary"][backend][name]
                found.append(
                    f"\n{key}, {backend}, {name}: {about['us']:.0f} us in {about['ops']:.0f} ops,"
                    f" of which {about['moving_us']:.0f} us only move"
                )
                found += [
                    f"  {line['us']:8.1f} us  {line['op']:<22} x{line['calls']:<5.3g} {line['shapes']}"
                    for line in lines[:top]
                ]
    return "\n".join(found)


def main(arguments: Sequence[str] | None = None) -> None:
    def add(parser: Any) -> None:
        parser.add_argument("--candidates", type=int, default=512)
        parser.add_argument("--top", type=int, default=12, help="ops that are printed of each profile")

    run = Run.of("profile_ops", __doc__, arguments, add)
    options = run.options
    count = 16 if options.quick else options.candidates
    subjects: dict[str, tuple[int, Callable[[Clock], dict[str, Any]]]] = {
        f"{key.partition('/')[2]}, N={count}, threads={threads}": (threads, partial(measure, key, count))
        for threads in (options.threads[:1] if options.quick else options.threads)
        for key in (MODELS[:1] if options.quick else MODELS)
    }
    print(report(run.measure(subjects), options.top))


if __name__ == "__main__":
    main()
