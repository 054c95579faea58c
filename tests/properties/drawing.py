"""Random programs: inputs of some shapes, and a few ops over what there is."""

from __future__ import annotations

from typing import Any

from properties.choices import Choices
from properties.operations import OPERATIONS
from properties.operations.fitting import LARGEST, volume
from properties.recorder import Handle, Recorded, Recorder, aten

SIZES = (4, 2, 3, 6, 1)


def fields(r: Recorder, c: Choices) -> list[Handle]:
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


def vectors(r: Recorder, c: Choices) -> list[Handle]:
    """Vectors side by side, as the input of an MLP."""
    xs = [add(c.pick(SIZES)) for add in _sides(r, c)]
    return [*xs, r.call(aten.cat.default, xs, -1)]


def tables(r: Recorder, c: Choices) -> list[Handle]:
    """One id per field, each with its table, stacked."""
    width = c.pick(SIZES[:4])
    xs = [add(high=8) for add in _sides(r, c)]
    rows = [r.call(aten.embedding.default, r.weight(8, width), x) for x in xs]
    return [*xs, r.call(aten.stack.default, rows, 1)]


def packed(r: Recorder, c: Choices) -> list[Handle]:
    """Context and target columns of one tensor, interleaved."""
    count = c.integer(2, 6)
    columns = [i for i in range(count) if c.flag()][: count - 1] or [c.integer(0, count - 1)]
    high = 8 if c.flag() else None
    shape = [] if high or c.flag() else [c.pick(SIZES)]
    x = r.packed(columns, count, *shape, high=high)
    return [x, r.call(aten.embedding.default, r.weight(8, c.pick(SIZES[:4])), x)] if high else [x]


def apart(r: Recorder, c: Choices) -> list[Handle]:
    """Inputs of unrelated shapes."""
    return [add(*(c.pick(SIZES) for _ in range(c.integer(0, 3)))) for add in _sides(r, c)]


def _sides(r: Recorder, c: Choices) -> list[Any]:
    """Ways to add inputs: some context, some target, in any order."""
    sides = [r.context if c.flag() else r.target for _ in range(c.integer(0, 2))]
    sides.insert(c.integer(0, len(sides)), r.context)
    sides.insert(c.integer(0, len(sides)), r.target)
    return sides


STARTS = (fields, vectors, tables, packed, apart)


def draw(r: Recorder, c: Choices, longest: int = 12) -> Recorded:
    """A program of at most `longest` steps over random inputs. Whatever nothing reads is an output."""
    values = c.pick(STARTS)(r, c)
    used = len(values) - 1
    for _ in range(c.integer(1, longest)):
        made = c.pick(OPERATIONS)(r, c, values)
        if made is not None and made.tensors[0].numel() and volume(made.shape) <= LARGEST:
            values.append(made)
        if c.spent:
            break
    return r.finish([value for value in values[used:] if not value.node.users])
