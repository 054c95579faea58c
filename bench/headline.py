"""How much faster is the rewritten ranker? Original on tiled rows, rewritten without sharing, the expert's, rewritten.

    python bench/headline.py [--only dlrm ...] [--candidates 100 512 2000] [--threads 2 1] [--compile] [--seconds 600]

Each ranker is optimised for the number of candidates and the backend that it is measured at, each model and number of
candidates in a process of its own: eager calls in both states of the heap (see running.py). Writes
bench/results/headline.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from contenders import Scene, Scores, entries
from running import Clock, Run, both_heaps, heap_of

CANDIDATES = (100, 512, 2000)
EAGER = ("original", "without sharing", "expert", "rankopt")
CLOSE = 1e-4
"""Relative to the largest score: what is further away computes something else."""


def measure(key: str, candidates: int, compiled: bool, clock: Clock) -> dict[str, Any]:
    """Times and FLOPs of one model at one number of candidates."""
    threads = torch.get_num_threads()
    scene = Scene.of(entries()[key], candidates)
    everybody = scene.eager()
    calls = {name: everybody[name] for name in EAGER if name in everybody}
    with torch.no_grad():
        times = {f"eager, {heap} heap": found for heap, found in both_heaps(calls, clock.share(3)).items()}
        others: list[tuple[str, dict[str, Scores]]] = [("onnxruntime", scene.onnxruntime(threads))]
        if compiled:
            others.append(("inductor", scene.inductor()))
        for number, (backend, contenders) in enumerate(others):
            times[backend] = heap_of(contenders, clock.share(len(others) - number))
            calls |= {f"{backend} {name}": call for name, call in contenders.items()}
    errors = {name: scene.error(call) for name, call in calls.items()}
    wrong = {name: error for name, error in errors.items() if not error < CLOSE}
    if wrong:
        raise ArithmeticError(f"further than {CLOSE} from the original: {wrong}")
    unchanged = next(plan for plan in scene.plans if plan.policy.unchanged)
    flops = {"original": unchanged, "without sharing": scene.plain, "rankopt": scene.plans[0]}
    return {
        "model": key,
        "candidates": candidates,
        "plan": scene.plans[0].policy.name,
        "mflop": {name: plan.flops.at(candidates) / 1e6 for name, plan in flops.items()},
        "errors": errors,
        "milliseconds": times,
        "ratios": ratios_of(times),
        "sentence": sentence(times),
    }


def ratios_of(times: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By backend and contender, the original's median over its own."""
    return {
        backend: {
            name: found["original"].median / timing.median for name, timing in found.items() if name != "original"
        }
        for backend, found in times.items()
    }


def sentence(times: dict[str, Any]) -> str:
    """What is printed of a result."""
    return "; ".join(
        f"{backend}: " + ", ".join(f"{name} {ratio:.2f}x" for name, ratio in found.items())
        for backend, found in ratios_of(times).items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    def add(parser: Any) -> None:
        parser.add_argument("--candidates", nargs="*", type=int, default=list(CANDIDATES))
        parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")

    run = Run.of("headline", __doc__, arguments, add)
    options = run.options
    keys = [key for key in entries() if key.startswith("headline/")]
    counts = [16] if options.quick else options.candidates
    subjects = {
        f"{key.partition('/')[2]}, N={count}, threads={threads}": (
            threads,
            partial(measure, key, count, options.compile),
        )
        for threads in options.threads
        for key in (keys[-2:-1] if options.quick else keys)
        for count in counts
    }
    run.measure(subjects)


if __name__ == "__main__":
    main()
