"""Random programs and random rankers, rewritten and compared with themselves; every failure is shrunk.

    python bench/fuzz.py --programs 20000 --rankers 500 --minutes 60 --jobs 2

A program is a sequence of ATen ops (tests/properties), a ranker a module of the blocks that real models are made of
(tests/rankers), captured as users' models are. A failure is printed as code, to be kept in the regressions.py of its
folder, and makes the exit code 1. Writes bench/results/fuzz.json: what was drawn, what became of it, how long it took.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, write
from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from properties.checking import assert_same
from properties.recorder import Recorded
from properties.strategy import programs
from rankers.checks import check as check_ranker
from rankers.drawing import draw, shrunk
from rankers.model import Description

from rankopt.plan import FULL, POLICIES, UNSHARED, other_forms

BATCH = {"programs": 500, "rankers": 10}
"""How many are drawn at a time. A batch of programs ends at its first failure, a batch of rankers does not."""

POLICIES_IN_TURN = (*POLICIES, UNSHARED, *other_forms(FULL))


@dataclass
class Found:
    """What one or more batches found."""

    drawn: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)

    def add(self, other: Found) -> None:
        self.drawn += other.drawn
        self.seconds += other.seconds
        self.failures += other.failures
        self.outcomes += other.outcomes
        self.blocks += other.blocks

    def facts(self) -> dict[str, Any]:
        """As JSON: `failures` is their number."""
        return {
            "drawn": self.drawn,
            "seconds": round(self.seconds, 1),
            "failures": len(self.failures),
            "found": self.failures,
            "outcomes": dict(self.outcomes),
            "blocks": dict(self.blocks.most_common()),
        }


def search_programs(number: int, count: int) -> Found:
    """Checks up to `count` programs drawn with seed `number`."""
    found = Found()

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(programs(12))
    def check(program: Recorded) -> None:
        found.drawn += 1
        policy = POLICIES_IN_TURN[number % len(POLICIES_IN_TURN)]
        assert_same(program, [policy], (64, 2, 2000)[number % 3], staged=found.drawn % 4 == 0)

    try:
        check()
    except Exception as error:  # whatever goes wrong is a finding
        notes = "\n".join(getattr(error, "__notes__", []))
        found.failures.append(f"seed {number}: {type(error).__name__}: {error}\n{notes}")
    return found


def search_rankers(number: int, count: int) -> Found:
    """Checks the rankers of `count` seeds from `number * BATCH`."""
    found = Found()
    for turn in range(number * BATCH["rankers"], number * BATCH["rankers"] + count):
        ranker = draw(turn)
        found.drawn += 1
        found.blocks.update(step.block for step in ranker.steps)
        outcome, error = _checked(ranker, turn)
        found.outcomes[outcome] += 1
        if error:
            kind = error.split(":")[0]
            small = shrunk(ranker, lambda simpler: _checked(simpler, turn)[1].startswith(kind))  # noqa: B023
            found.failures.append(f"turn {turn}: {_checked(small, turn)[1]}\n{small!r}")
    return found


def _checked(ranker: Description, turn: int) -> tuple[str, str]:
    """What became of a ranker, and the error if there is one."""
    try:
        return check_ranker(ranker, turn), ""
    except Exception as error:  # whatever goes wrong is a finding
        return "failed", f"{type(error).__name__} {error}"


SEARCHES: dict[str, Callable[[int, int], Found]] = {"programs": search_programs, "rankers": search_rankers}


def search(kind: str, number: int, count: int) -> tuple[str, Found]:
    """One batch, in a process of its own thread."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = SEARCHES[kind](number, count)
    found.seconds = time.perf_counter() - start
    return kind, found


def batches(kind: str, total: int, first: int) -> Iterator[tuple[str, int, int]]:
    """The batches of one kind: kind, seed, how many."""
    for i, done in enumerate(range(0, total, BATCH[kind])):
        yield kind, first * 1_000_003 + i, min(BATCH[kind], total - done)


def alternating(one: list[Any], other: list[Any]) -> Iterator[Any]:
    """Both lists at the same pace, so that a run that is cut short has seen its share of each."""
    places = [((i + 0.5) / len(items), item) for items in (one, other) for i, item in enumerate(items)]
    return iter([item for _, item in sorted(places, key=lambda place: place[0])])


def run(work: Iterator[tuple[str, int, int]], jobs: int, minutes: float) -> dict[str, Found]:
    """Does the work in `jobs` processes; starts nothing new after `minutes`."""
    found = {kind: Found() for kind in SEARCHES}
    end = time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(search, *batch) for batch in islice(work, jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                kind, batch = future.result()
                found[kind].add(batch)
                for failure in batch.failures:
                    print(failure, flush=True)
                if time.monotonic() < end:
                    running |= {pool.submit(search, *batch) for batch in islice(work, 1)}
            print(_summary(found), file=sys.stderr, flush=True)
    return found


def _summary(found: dict[str, Found]) -> str:
    return ", ".join(
        f"{of.drawn} {kind} in {of.seconds:.0f} s, {len(of.failures)} failures" for kind, of in found.items()
    )


def main() -> int:
    """Runs the search, prints what it found, and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--rankers", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where fuzz.json is written")
    options = parser.parse_args()
    kinds = [list(batches(kind, getattr(options, kind), options.seed)) for kind in SEARCHES]
    found = run(alternating(*kinds), options.jobs, options.minutes)
    facts = {kind: {"seed": options.seed, **of.facts()} for kind, of in found.items() if of.drawn}
    print(write("fuzz", facts, options.folder, ["hypothesis"]))
    print(_summary(found))
    return 1 if any(of.failures for of in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
