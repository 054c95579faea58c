"""Random programs, rewritten and compared with themselves: how many, how long, and every failure shrunk.

    python bench/fuzz.py --programs 20000 --seed 0

A failure is printed as the code of its program, to be kept in tests/properties/regressions.py, and makes the exit
code 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from properties.checking import assert_same
from properties.recorder import Recorded
from properties.strategy import programs

from rankopt.plan import FULL, POLICIES, UNSHARED, other_forms

BATCH = 500
"""Programs per search; each search ends at its first failure, shrunk."""

POLICIES_IN_TURN = (*POLICIES, UNSHARED, *other_forms(FULL))


def search(count: int, number: int, longest: int) -> tuple[int, str]:
    """Checks up to `count` programs drawn with seed `number`. Returns how many, and the failure if there is one."""
    checked = 0

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(programs(longest))
    def check(program: Recorded) -> None:
        nonlocal checked
        checked += 1
        policy = POLICIES_IN_TURN[number % len(POLICIES_IN_TURN)]
        assert_same(program, [policy], (64, 2, 2000)[number % 3], staged=checked % 4 == 0)

    try:
        check()
    except Exception as error:  # whatever goes wrong is a finding
        notes = "\n".join(getattr(error, "__notes__", []))
        return checked, f"seed {number}: {type(error).__name__}: {error}\n{notes}"
    return checked, ""


def main() -> int:
    """Runs the search and prints what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=int, default=12, help="steps of a program at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, checked, failures = time.perf_counter(), 0, 0
    number = options.seed * 1_000_003
    while checked < options.programs:
        count, failure = search(min(BATCH, options.programs - checked), number, options.longest)
        checked, number = checked + count, number + 1
        if failure:
            failures += 1
            print(failure, flush=True)
        seconds = time.perf_counter() - start
        print(f"{checked} programs, {failures} failures, {seconds:.0f} s", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - start
    print(f"{checked} programs in {seconds:.0f} s ({1e3 * seconds / checked:.0f} ms each), {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
