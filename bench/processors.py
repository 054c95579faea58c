"""Whether this process's threads run on processors of their own, side by side.

Two processors of a virtual machine may for a while be the two hardware threads of one physical core, or two cores that
share no cache. Then what is compared no longer compares: programs that share their work between threads lose, those
that leave one idle do not. A product of matrices tells the first state, because one thread alone keeps a core's
multipliers busy: with two it is 1.9 times as fast, or 1.05 times. Sums of a few thousand numbers tell the second,
because they are mostly handing over: with two threads they are 1.3 times as fast, or take longer than with one, and so
does a whole model whose calls are small.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

QUIET = 0.005
"""Seconds after which idle threads have fallen asleep, which would otherwise spin against others."""


def undisturbed() -> bool:
    """Whether they do at the moment. Takes some 20 ms, with one thread no time at all."""
    threads = torch.get_num_threads()
    if threads == 1:
        return True
    left, right = torch.ones(256, 1024), torch.ones(1024, 256)
    few, result = torch.ones(66_000), torch.empty(66_000)  # just enough for torch to share them
    time.sleep(QUIET)
    try:
        own_cores = _gain(threads, lambda: torch.mm(left, right)) >= 0.75 * threads
        return own_cores and _gain(threads, lambda: [torch.add(few, few, out=result) for _ in range(50)]) >= 1.08
    finally:
        torch.set_num_threads(threads)
        time.sleep(QUIET)


def _gain(threads: int, call: Callable[[], object]) -> float:
    """How many times as fast as with one thread a call is."""
    alone, together = (_seconds(number, call) for number in (1, threads))
    return alone / together


def _seconds(threads: int, call: Callable[[], object], repeats: int = 4) -> float:
    """The shortest time of a call; the first is not counted."""
    torch.set_num_threads(threads)
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times[1:])
