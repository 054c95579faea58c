"""Measuring side by side: everything that is compared runs in one process, in turn, and medians of many rounds count.

Shared machines are noisy: single times mean little, ratios of interleaved medians mean something.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import processors
import torch

RESULTS = Path(__file__).parent / "results"


SETTLING, TIMED = 2, 4
"""Calls per round before those that are timed, and of these."""


PATIENCE = 4
"""How many times the seconds that were asked for a measurement may take to get its rounds."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per call: median and quartiles over the rounds."""

    median: float
    low: float
    high: float
    rounds: int
    left_out: int = 0
    """Calls that do not count, because the threads had no processors of their own, side by side (see processors.py)."""


Round = dict[str, list[float]]


def interleaved(
    calls: Mapping[str, Callable[[], Any]], rounds: int = 30, warmup: int = 3, seconds: float = 20.0, least: int = 5
) -> dict[str, Timing]:
    """Times of `calls`, in turn. Stops after `seconds`, but not before `least` rounds.

    The timed calls of a round follow untimed ones of the same: they find the caches and the allocator as they left them
    themselves, as they would in a process of their own, and not as what they are compared with left them. A round
    counts if the threads had processors of their own, side by side, before and after it; where that stays rare, all
    rounds count.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    counted: list[Round] = []
    others: list[Round] = []
    start = time.perf_counter()
    undisturbed = processors.undisturbed()
    while len(counted) < rounds:
        found = {name: _timed(call) for name, call in calls.items()}
        before, undisturbed = undisturbed, processors.undisturbed()
        (counted if before and undisturbed else others).append(found)
        passed = time.perf_counter() - start
        enough = counted if passed <= PATIENCE * seconds else counted + others
        if passed > seconds and len(enough) >= least:
            break
    if len(counted) < least:
        counted, others = counted + others, []
    return {name: _timing([one[name] for one in counted], len(others)) for name in calls}


def _timed(call: Callable[[], Any]) -> list[float]:
    """Milliseconds of one round's calls."""
    for _ in range(SETTLING):
        call()
    times = []
    for _ in range(TIMED):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def _timing(rounds: Sequence[Sequence[float]], left_out: int) -> Timing:
    times = [time for one in rounds for time in one]
    low, median, high = statistics.quantiles(times, n=4)
    return Timing(median, low, high, len(times), left_out * TIMED)


def commit() -> str:
    """The commit that is measured, in short."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """What a reader needs to know about where a figure was measured; `packages` are those of the subjects."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "numpy", *packages)},
        "commit": commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(name: str, results: Any, directory: Path = RESULTS, packages: Sequence[str] = ()) -> Path:
    """Writes `results` with the machine's description as `<name>.json`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    document = {"machine": machine(packages), "results": results}
    path.write_text(json.dumps(document, indent=2, default=asdict) + "\n")
    return path
