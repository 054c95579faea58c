"""Whether this process's threads run on processors of their own.

Two processors of a virtual machine may for a while be the two hardware threads of one physical core. Then two threads
are hardly faster than one, a call takes up to twice as long, and what is compared no longer compares: programs that
share their work between threads lose, those that leave one idle do not. A product of matrices tells the states apart,
because one thread alone keeps a core's multipliers busy: it is 1.9 times as fast with two threads in the one state, and
1.05 times in the other; nothing lies between.
"""

from __future__ import annotations

import time

import torch

ENOUGH = 0.75
"""Of the threads' number, how many times as fast they must be as one."""

QUIET = 0.005
"""Seconds after which idle threads have fallen asleep, which would otherwise spin against others."""


def apart() -> bool:
    """Whether they do at the moment. Takes some 20 ms, with one thread no time at all."""
    threads = torch.get_num_threads()
    if threads == 1:
        return True
    time.sleep(QUIET)
    try:
        alone = _seconds(1)
        together = _seconds(threads)
    finally:
        torch.set_num_threads(threads)
    time.sleep(QUIET)
    return alone / together >= ENOUGH * threads


def _seconds(threads: int, repeats: int = 4) -> float:
    """The shortest time of a product that fits into a cache; the first is not counted."""
    torch.set_num_threads(threads)
    left, right = torch.ones(256, 1024), torch.ones(1024, 256)
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - begin)
    return min(times[1:])
