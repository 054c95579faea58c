"""How much faster is the rewritten ranker? Original on tiled rows, rewritten without sharing, rewritten.

    python bench/headline.py [--models dlrm ...] [--candidates 100 512 2000] [--threads 2] [--compile] [--name headline]

Each ranker is optimised for the number of candidates that it is measured at. Writes bench/results/<name>.json.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from harness import Timing, interleaved, write
from models import Subject, headline
from serving import PreparedRanker, RowsModel, onnx_session
from torch import Tensor

from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import alternatives, unshared
from rankopt.prices import ONNX_RUNTIME
from rankopt.selectors import InputRole, Role

Request = Mapping[str, Tensor]


def measure(subject: Subject, candidates: int, threads: int, compiled: bool, seconds: float) -> dict[str, Any]:
    """Times and FLOPs of one model at one number of candidates."""
    captured, roles = capture_with_roles(subject.model, *subject.request(50), None)
    plans = alternatives(captured, roles, candidates)
    plain = unshared(captured, roles, candidates)
    before = next(plan for plan in plans if plan.policy.unchanged)
    context, target = subject.request(candidates, seed=1)
    rows = subject.rows(context, target)
    everything_target = tuple(InputRole(role.name, Role.TARGET) for role in roles)
    ranker, plainly = build(captured, roles, plans[0]), build(captured, everything_target, plain)
    for_onnx = build(captured, roles, alternatives(captured, roles, candidates, profile=ONNX_RUNTIME)[0])
    everything = {**context, **target}
    tiled = {name: rows[name.removeprefix("features.")] for name in captured.call.names}
    flat = {name: everything[name] for name in (*for_onnx.stages.context_inputs, *for_onnx.stages.target_inputs)}

    slow = onnx_session(RowsModel(subject.model, captured.call), tiled, set(tiled), threads)
    fast = onnx_session(PreparedRanker(for_onnx), flat, set(target), threads)
    groups: list[dict[str, Callable[[], Any]]] = [
        {
            "eager original": lambda: subject.model(rows),
            "eager without sharing": lambda: plainly({}, tiled),
            "eager rankopt": lambda: ranker(context, target),
        },
        {"onnxruntime original": lambda: slow(tiled), "onnxruntime rankopt": lambda: fast(flat)},
    ]
    if compiled:
        original, rewritten = torch.compile(subject.model, dynamic=True), torch.compile(ranker, dynamic=True)
        groups.append(
            {"inductor original": lambda: original(rows), "inductor rankopt": lambda: rewritten(context, target)}
        )
    timings: dict[str, Timing] = {}
    with torch.no_grad():
        expected = subject.model(rows)
        for calls in groups:  # a backend at a time: the idle threads of one would spin against the other's
            for name, call in calls.items():
                result = call()
                found = torch.from_numpy(result[0]) if isinstance(result, list) else result
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=f"{subject.name}: {name}")
            timings |= interleaved(calls, rounds=100, seconds=seconds)
            time.sleep(0.5)
    ratios = {
        backend: timings[f"{backend} original"].median / timings[f"{backend} rankopt"].median
        for backend in ("eager", "onnxruntime", "inductor")
        if f"{backend} original" in timings
    }
    return {
        "model": subject.name,
        "candidates": candidates,
        "plan": plans[0].policy.name,
        "mflop": {
            "original": before.flops.at(candidates) / 1e6,
            "without sharing": plain.flops.at(candidates) / 1e6,
            "rankopt": plans[0].flops.at(candidates) / 1e6,
        },
        "milliseconds": timings,
        "ratios": ratios,
        "ratio without sharing": timings["eager original"].median / timings["eager without sharing"].median,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--candidates", nargs="*", type=int, default=[100, 512, 2000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15.0, help="per model and number of candidates")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument("--name", default="headline")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    results = []
    for subject in headline():
        if arguments.models and subject.name not in arguments.models:
            continue
        for candidates in arguments.candidates:
            result = measure(subject, candidates, arguments.threads, arguments.compile, arguments.seconds)
            results.append(result)
            ratios = ", ".join(f"{backend} {ratio:.2f}x" for backend, ratio in result["ratios"].items())
            flops = result["mflop"]
            print(
                f"{subject.name} N={candidates}: {flops['original']:.0f} -> {flops['rankopt']:.0f} MFLOP, {ratios}"
                f" (plan: {result['plan']}; without sharing {result['ratio without sharing']:.2f}x)",
                flush=True,
            )
    print(write(arguments.name, results))


if __name__ == "__main__":
    main()
