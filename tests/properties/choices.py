"""Where the randomness of random programs comes from: a generator, or a list of choices that is made again.

Every choice is a number from 0 to some bound, and is noted. Made again from the notes, a program is the same; from
notes of which some are left out or lowered it is another, usually smaller program of the same kind. That is all that is
needed to shrink one that fails, whatever it is made of.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Choices that a generator makes; with `again`, those of a list, and the lowest ones when it has ended."""

    def __init__(self, seed: int = 0, again: Sequence[int] | None = None) -> None:
        self._generator = random.Random(seed)
        self._again = again
        self.made: list[int] = []
        """The choices so far, each as its distance from the lowest."""

    @property
    def spent(self) -> bool:
        """Whether the list that is made again has ended."""
        return self._again is not None and len(self.made) >= len(self._again)

    def integer(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""
        if low == high:
            return low
        if self._again is None:
            chosen = self._generator.randrange(high - low + 1)
        else:
            chosen = 0 if self.spent else min(self._again[len(self.made)], high - low)
        self.made.append(chosen)
        return low + chosen

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, of which the first is the simplest."""
        return items[self.integer(0, len(items) - 1)]

    def flag(self) -> bool:
        """False, or true."""
        return bool(self.integer(0, 1))
