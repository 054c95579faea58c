"""Random programs and random rankers, rewritten and compared with themselves; every failure is shrunk.

    python bench/fuzz.py --programs 20000 --rankers 500 --minutes 60 --jobs 2

A program is a sequence of ATen ops (tests/properties), a ranker a module of the blocks that real models are made of
(tests/rankers), captured as users' models are. Both are drawn by number, and the numbers follow each other from
`--seed` millions on. A failure is printed with its number and as code, to be kept in the regressions.py of its folder,
and makes the exit code 1.

Batches are noted in FOLDER/fuzz-batches.jsonl as they end. A run that is interrupted goes on where it stopped when it
is started again at the same commit. FOLDER/fuzz.json is the sum: what was drawn, what became of it, and the seconds of
a processor that it took.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import RESULTS, commit, write

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from properties.searching import failure_of
from properties.turns import check_in_turn
from rankers.checks import check as check_ranker
from rankers.drawing import draw, shrunk
from rankers.model import Description

SIZES = {"programs": 400, "rankers": 10}
"""How many a batch has: half a minute of work, or less."""

LOG = "fuzz-batches.jsonl"


class Batch(NamedTuple):
    """Some programs or rankers: their numbers are `first` and those that follow."""

    kind: str
    first: int
    count: int

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)


@dataclass
class Found:
    """What one or more batches found, in how many seconds of a processor."""

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

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Found:
        """The inverse of `facts`."""
        counted = Counter(facts["outcomes"]), Counter(facts["blocks"])
        return cls(facts["drawn"], facts["seconds"], list(facts["found"]), *counted)


# ------------------------------------------------------------------------------------------------------ one batch


def search_programs(numbers: Collection[int]) -> Found:
    """Checks the programs of some numbers."""
    found = Found(len(numbers))
    for number in numbers:
        if failure := failure_of(number, lambda program: check_in_turn(program, number)):  # noqa: B023
            found.failures.append(f"program {number}: {failure}")
    return found


def search_rankers(numbers: Collection[int]) -> Found:
    """Checks the rankers of some numbers."""
    found = Found(len(numbers))
    for number in numbers:
        ranker = draw(number)
        found.blocks.update(step.block for step in ranker.steps)
        outcome, error = _checked(ranker, number)
        found.outcomes[outcome] += 1
        if error:
            kind = error.split(":")[0]
            small = shrunk(ranker, lambda simpler: _checked(simpler, number)[1].startswith(kind))  # noqa: B023
            found.failures.append(f"ranker {number}: {_checked(small, number)[1]}\n{small!r}")
    return found


def _checked(ranker: Description, number: int) -> tuple[str, str]:
    """What became of a ranker, and the error if there is one."""
    try:
        return check_ranker(ranker, number), ""
    except Exception as error:  # whatever goes wrong is a finding
        return "failed", f"{type(error).__name__} {error}"


SEARCHES: dict[str, Callable[[Collection[int]], Found]] = {"programs": search_programs, "rankers": search_rankers}


def search(batch: Batch) -> tuple[Batch, Found]:
    """One batch, in a process of its own thread."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays
    start = time.process_time()
    found = SEARCHES[batch.kind](batch.numbers)
    found.seconds = time.process_time() - start
    return batch, found


# ------------------------------------------------------------------------------------------------------ all batches


def batches(kind: str, total: int, first: int) -> list[Batch]:
    """The batches of one kind."""
    size = SIZES[kind]
    return [Batch(kind, first + done, min(size, total - done)) for done in range(0, total, size)]


def alternating(one: list[Any], other: list[Any]) -> list[Any]:
    """Both lists at the same pace, so that a run that is cut short has seen its share of each."""
    places = [((i + 0.5) / len(items), item) for items in (one, other) for i, item in enumerate(items)]
    return [item for _, item in sorted(places, key=lambda place: place[0])]


class Log:
    """The batches that have ended, a line each, each with the commit that it checked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._commit = commit()

    def read(self) -> dict[Batch, Found]:
        """What this commit's batches found. A line that was cut short is none."""
        found: dict[Batch, Found] = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry["commit"] == self._commit:
                found[Batch(*entry["batch"])] = Found.of(entry["found"])
        return found

    def add(self, batch: Batch, found: Found) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"commit": self._commit, "batch": batch, "found": found.facts()}) + "\n")


def run(work: Collection[Batch], jobs: int, minutes: float) -> Iterator[tuple[Batch, Found]]:
    """Does the work in `jobs` processes, gives each batch as it ends; starts nothing new after `minutes`."""
    end = time.monotonic() + 60 * minutes
    waiting = iter(work)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(search, batch) for batch in islice(waiting, jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                if time.monotonic() < end:
                    running |= {pool.submit(search, batch) for batch in islice(waiting, 1)}
                yield future.result()


def summed(found: Mapping[Batch, Found]) -> dict[str, Found]:
    """What the batches of each kind found together."""
    total = {kind: Found() for kind in SEARCHES}
    for batch, of in found.items():
        total[batch.kind].add(of)
    return total


def summary(total: Mapping[str, Found]) -> str:
    """One line."""
    return ", ".join(
        f"{of.drawn} {kind} in {of.seconds:.0f} s of a processor, {len(of.failures)} failures"
        for kind, of in total.items()
    )


def main() -> int:
    """Runs the search, prints what it found, and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--rankers", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0, help="the first number, in millions")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where fuzz.json is written")
    options = parser.parse_args()
    work = alternating(*(batches(kind, getattr(options, kind), options.seed * 1_000_000) for kind in SEARCHES))
    log = Log(options.folder / LOG)
    known = log.read()
    found = {batch: known[batch] for batch in work if batch in known}
    for failure in (failure for of in found.values() for failure in of.failures):
        print(failure, flush=True)
    for batch, of in run([batch for batch in work if batch not in found], options.jobs, options.minutes):
        found[batch] = of
        log.add(batch, of)
        for failure in of.failures:
            print(failure, flush=True)
        total = summed(found)
        facts = {kind: {"seed": options.seed, **all_of.facts()} for kind, all_of in total.items() if all_of.drawn}
        write("fuzz", facts, options.folder)
        print(summary(total), file=sys.stderr, flush=True)
    total = summed(found)
    print(summary(total))
    return 1 if any(of.failures for of in total.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
