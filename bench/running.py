"""How a script of measurements runs: its options, its budget, a process per subject, and results kept as they come.

    --seconds S    the budget: what is left is shared out evenly, and nothing is started when it is spent
    --quick        a small slice, to see that the script works; written to build/bench, and never to bench/results
    --again        measure again what was measured at this commit
    --only TEXT    only what has one of these texts in its name
    --here         in this process, for debugging

A subject is measured in a process of its own, pinned to as many processors as it has threads, as a serving process that
holds one model would run it. A process that has only ever held small tensors gives memory back after each call and maps
it anew in the next one, and what needs more memory pays more; `both_heaps` measures that state first ("fresh"),
and then what a process is in after it has once freed something large ("warm"), in which nobody pays.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, Timing, commit, interleaved, write

QUICK = Path(__file__).parents[1] / "build" / "bench"
GRACE = 240.0
"""Seconds beyond its share after which a subject is given up: preparing takes what it takes."""

Call = Callable[[], Any]


@dataclass(slots=True)
class Clock:
    """A budget of seconds that began when it was made."""

    seconds: float
    begin: float

    @classmethod
    def of(cls, seconds: float) -> Clock:
        return cls(seconds, time.perf_counter())

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.begin)

    def share(self, parts: int, least: float = 0.3) -> float:
        """An even part of what is left, but something in any case."""
        return max(self.left / max(parts, 1), least)


Measure = Callable[[Clock], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a script; `name` is that of its file of results."""

    name: str
    options: argparse.Namespace

    @classmethod
    def of(
        cls,
        name: str,
        description: str | None,
        arguments: Sequence[str] | None,
        add: Callable[[Any], Any] | None = None,
    ) -> Run:
        """Reads the options; `add` may add some to the parser."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--seconds", type=float, default=600.0, help="budget of the whole run (600)")
        parser.add_argument("--threads", nargs="*", type=int, default=[2, 1], help="threads to measure with (2 1)")
        parser.add_argument("--only", nargs="*", default=[], metavar="TEXT")
        parser.add_argument("--quick", action="store_true", help="a small slice, written to build/bench")
        parser.add_argument("--again", action="store_true", help="also what was measured at this commit")
        parser.add_argument("--here", action="store_true", help="measure in this process")
        parser.add_argument("--folder", type=Path, help="of the results (bench/results, or build/bench)")
        if add:
            add(parser)
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        return cls(name, parser.parse_args(arguments))

    @property
    def folder(self) -> Path:
        return self.options.folder or (QUICK if self.options.quick else RESULTS)

    def measure(self, subjects: Mapping[str, tuple[int, Measure]]) -> dict[str, Any]:
        """Measures every subject that is not known yet, each given its number of threads, and returns all results.

        What goes wrong with a subject is a result of its own, and the next one is measured.
        """
        results = self.known()
        clock = Clock.of(self.options.seconds)
        wanted = [key for key in subjects if not self.options.only or any(text in key for text in self.options.only)]
        missing = [key for key in wanted if self.options.again or not _is_done(results.get(key))]
        print(f"{self.name}: {len(wanted)} subjects, {len(wanted) - len(missing)} of them measured already")
        for done, key in enumerate(missing):
            if clock.left <= 0:
                print(f"{self.name}: the budget is spent; left for the next run: {', '.join(missing[done:])}")
                break
            threads, measure = subjects[key]
            begin, load = time.perf_counter(), os.getloadavg()[0]
            share = clock.share(len(missing) - done)
            found = _guarded(measure, share) if self.options.here else apart(measure, threads, share)
            results[key] = {"commit": commit(), "threads": threads, "load": load, **found}
            self.keep(results, subjects)
            print(
                f"[{done + 1}/{len(missing)}] {key}: {_sentence(found)} ({time.perf_counter() - begin:.0f} s)",
                flush=True,
            )
        return results

    def known(self) -> dict[str, Any]:
        """What was measured before."""
        path = self.folder / f"{self.name}.json"
        return json.loads(path.read_text())["results"] if path.exists() else {}

    def keep(self, results: Mapping[str, Any], order: Iterable[str] = ()) -> Path:
        """Writes the results, in this order."""
        places = {key: place for place, key in enumerate(order)}
        ordered = dict(sorted(results.items(), key=lambda item: places.get(item[0], len(places))))
        return write(self.name, ordered, self.folder)


def _is_done(result: dict[str, Any] | None) -> bool:
    return result is not None and result["commit"] == commit() and "error" not in result


def _sentence(found: dict[str, Any]) -> str:
    return found.get("error", found.get("sentence", "measured"))


# ------------------------------------------------------------------------------------------------- a process apart


def apart(measure: Measure, threads: int, seconds: float) -> dict[str, Any]:
    """What `measure` returns in a fresh process of `threads` threads."""
    context = multiprocessing.get_context("spawn")  # a forked process would inherit a heap, and the locks of threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker, args=(theirs, measure, threads, seconds))
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds + GRACE):
            return {"error": f"not done after {seconds + GRACE:.0f} seconds"}
        return ours.recv()
    except EOFError:
        process.join()
        return {"error": f"the process ended with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _worker(pipe: Connection, measure: Measure, threads: int, seconds: float) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    pin(threads)
    pipe.send(_guarded(measure, seconds))


def _guarded(measure: Measure, seconds: float) -> dict[str, Any]:
    try:
        return measure(Clock.of(seconds))
    except Exception as error:  # whatever goes wrong with one subject is said, and the next one is measured
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:400]}


def pin(threads: int) -> None:
    """Keeps this process on the first `threads` processors that it may use."""
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


# ------------------------------------------------------------------------------------------------------- the heap


def fresh_heap() -> None:
    """Gives back what the allocator holds, as if nothing had been held yet."""
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def warm_heap() -> None:
    """Frees something as large as raises glibc's thresholds to their maximum: from now on memory is kept."""
    torch.empty(31 << 18, dtype=torch.float32).fill_(0.0)


def both_heaps(calls: Mapping[str, Call], seconds: float, least: int = 5) -> dict[str, dict[str, Timing]]:
    """Times of calls in either state of the heap. The fresh one cannot be restored, so it comes first."""
    fresh = heap_of(calls, seconds / 2, least)
    warm_heap()
    return {"fresh": fresh, "warm": heap_of(calls, seconds / 2, least)}


def heap_of(calls: Mapping[str, Call], seconds: float, least: int = 5) -> dict[str, Timing]:
    """Times of one backend's calls, on the heap as it is. The idle threads of another would spin against them, so they
    are given a moment to fall asleep."""
    time.sleep(0.3)
    return interleaved(calls, rounds=200, seconds=seconds, least=least)


def peak_memory(call: Call) -> float | None:
    """Megabytes that a call needs beyond what the process holds; None where the system does not tell."""
    try:
        fresh_heap()
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        call()
        return (_status("VmHWM") - before) / 1e3
    except OSError:
        return None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
