"""Who else computes the scores of a request, and how well? Everybody of contenders.py, on every model of the zoo.

    python bench/peers.py [--only dlrm zoo/din] [--candidates 512] [--threads 2 1] [--compile] [--seconds 600]

For each model, in a process of its own: milliseconds per request (eager in both states of the heap, ONNX Runtime, with
--compile also torch.compile), MFLOP by torch's counter, megabytes beyond what the process holds, and the error against
float64 relative to the largest score. Models with a hand-written version come first, so that a short budget has them.
Writes bench/results/peers.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from contenders import Scene, Scores, entries, mflop
from headline import ratios_of, sentence
from running import Clock, Run, both_heaps, heap_of, peak_memory

CLOSE = 1e-3
"""Relative to the largest score: what is further away computes something else, and has no time."""


def measure(key: str, candidates: int, compiled: bool, clock: Clock) -> dict[str, Any]:
    """All facts about one model at one number of candidates."""
    threads = torch.get_num_threads()
    scene = Scene.of(entries()[key], candidates)
    times: dict[str, Any] = {}
    none: dict[str, str] = {}
    with torch.no_grad():
        eager = runnable(scene.eager(), none)
        times |= {f"eager, {heap} heap": found for heap, found in both_heaps(eager, clock.share(2)).items()}
        facts = {name: about(scene, call) for name, call in eager.items()}
        others = {"onnxruntime": partial(scene.onnxruntime, threads)}
        if compiled:
            others["inductor"] = scene.inductor
        for number, (backend, prepare) in enumerate(others.items()):
            calls = runnable(prepare(), none)
            times[backend] = heap_of(calls, clock.share(len(others) - number))
            for name, call in calls.items():
                facts[f"{backend} {name}"] = {"error": scene.error(call)}
    far = {name: fact["error"] for name, fact in facts.items() if not fact["error"] < CLOSE}
    if far:
        raise ArithmeticError(f"further than {CLOSE} from the original: {far}")
    return {
        "model": key,
        "candidates": candidates,
        "plan": scene.plans[0].policy.name,
        "facts": facts,
        "none": none,
        "milliseconds": times,
        "ratios": ratios_of(times),
        "sentence": sentence({name: found for name, found in times.items() if "fresh" not in name}),
    }


def about(scene: Scene, scores: Scores) -> dict[str, Any]:
    """What takes no clock."""
    return {"mflop": mflop(scores), "peak_mb": peak_memory(scores), "error": scene.error(scores)}


def runnable(calls: Mapping[str, Scores], none: dict[str, str]) -> dict[str, Scores]:
    """Those that run; why the others do not is added to `none`."""
    found = {}
    for name, call in calls.items():
        try:
            call()
        except Exception as error:  # somebody else's way may not suit a model, and that is a result
            none[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]
        else:
            found[name] = call
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    def add(parser: Any) -> None:
        parser.add_argument("--candidates", type=int, default=512)
        parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")

    run = Run.of("peers", __doc__, arguments, add)
    options = run.options
    count = 16 if options.quick else options.candidates
    keys = ["zoo/din"] if options.quick else list(entries())
    run.measure(
        {
            f"{key}, threads={threads}": (threads, partial(measure, key, count, options.compile))
            for threads in (options.threads[:1] if options.quick else options.threads)
            for key in keys
        }
    )


if __name__ == "__main__":
    main()
