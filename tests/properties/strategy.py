"""Random programs, drawn by hypothesis so that those that fail shrink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st
from properties.operations import LARGEST, OPERATIONS, Choice, volume
from properties.recorder import Handle, Recorded, Recorder, aten

T = TypeVar("T")
SIZES = (4, 2, 3, 6, 1)


@cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Choices that hypothesis makes."""

    draw: Any

    def integer(self, low: int, high: int) -> int:
        return low if low == high else self.draw(_integers(low, high))

    def pick(self, items: Sequence[T]) -> T:
        return items[self.integer(0, len(items) - 1)]

    def flag(self) -> bool:
        return bool(self.integer(0, 1))


def fields(r: Recorder, c: Choice) -> list[Handle]:
    """Fields of one width, from context and target in any order, side by side."""
    width = c.pick(SIZES)
    xs: list[Handle] = []
    for add in _sides(r, c):
        count = c.pick(SIZES)
        xs.append(
            r.call(aten.embedding.default, r.weight(8, width), add(*([count] if c.flag() else [1]), high=8))
            if width > 1 and c.integer(0, 3) == 0
            else add(count, width)
        )
    return [*xs, r.call(aten.cat.default, xs, 1)]


def vectors(r: Recorder, c: Choice) -> list[Handle]:
    """Vectors side by side, as the input of an MLP."""
    xs = [add(c.pick(SIZES)) for add in _sides(r, c)]
    return [*xs, r.call(aten.cat.default, xs, -1)]


def tables(r: Recorder, c: Choice) -> list[Handle]:
    """One id per field, each with its table, stacked."""
    width = c.pick(SIZES[:4])
    xs = [add(high=8) for add in _sides(r, c)]
    rows = [r.call(aten.embedding.default, r.weight(8, width), x) for x in xs]
    return [*xs, r.call(aten.stack.default, rows, 1)]


def packed(r: Recorder, c: Choice) -> list[Handle]:
    """Context and target columns of one tensor, interleaved."""
    count = c.integer(2, 6)
    columns = [i for i in range(count) if c.flag()][: count - 1] or [c.integer(0, count - 1)]
    high = 8 if c.flag() else None
    shape = [] if high or c.flag() else [c.pick(SIZES)]
    x = r.packed(columns, count, *shape, high=high)
    return [x, r.call(aten.embedding.default, r.weight(8, c.pick(SIZES[:4])), x)] if high else [x]


def apart(r: Recorder, c: Choice) -> list[Handle]:
    """Inputs of unrelated shapes."""
    return [add(*(c.pick(SIZES) for _ in range(c.integer(0, 3)))) for add in _sides(r, c)]


def _sides(r: Recorder, c: Choice) -> list[Any]:
    """Ways to add inputs: some context, some target, in any order."""
    sides = [r.context if c.flag() else r.target for _ in range(c.integer(0, 2))]
    sides.insert(c.integer(0, len(sides)), r.context)
    sides.insert(c.integer(0, len(sides)), r.target)
    return sides


STARTS = (fields, vectors, tables, packed, apart)


@st.composite
def programs(draw: Any, longest: int = 12) -> Recorded:
    """A program of at most `longest` steps over random inputs. Whatever nothing reads is an output."""
    r, c = Recorder(), Drawn(draw)
    values = c.pick(STARTS)(r, c)
    used = len(values) - 1
    for _ in range(c.integer(1, longest)):
        made = c.pick(OPERATIONS)(r, c, values)
        if made is not None and made.tensors[0].numel() and volume(made.shape) <= LARGEST:
            values.append(made)
    return r.finish([value for value in values[used:] if not value.node.users])
