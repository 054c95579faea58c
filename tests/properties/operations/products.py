"""Products: layers, matrix products, einsum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from properties.choices import Choices
from properties.operations.fitting import (
    DOUBLE,
    LARGEST,
    alike,
    bounded,
    broadcasts,
    chosen,
    is_float,
    plain,
    static,
    volume,
    within,
)
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows


def linear(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, bounded, lambda x: x.ndim > 1 and not isinstance(x.shape[-1], Rows))
    if x is None:
        return None
    inner, outer = static(x.shape[-1]), c.pick([4, 3, 6, 1])
    weight = r.weight(outer, inner, dtype=x.dtype)
    if x.ndim == 2 and c.integer(0, 3) == 0:
        y = r.call(aten.permute.default, weight, [1, 0])
        return (
            r.call(aten.addmm.default, r.weight(outer, dtype=x.dtype), x, y)
            if c.flag()
            else r.call(aten.mm.default, x, y)
        )
    return r.call(aten.linear.default, x, weight, *([r.weight(outer, dtype=x.dtype)] if c.flag() else []))


def matmul(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Two activations, their dims but the last two broadcast."""
    x = chosen(c, values, is_float, bounded, lambda x: x.ndim > 1 and not isinstance(x.shape[-1], Rows))
    if x is None:
        return None

    def fits(y: Handle) -> bool:
        if y.ndim < 2 or y.shape[-2] != x.shape[-1]:
            return False
        if isinstance(y.shape[-1], Rows) and isinstance(x.shape[-2], Rows):
            return False
        full = (*x.shape[:-2], static(x.shape[-2]), static(y.shape[-1]))
        return broadcasts(x.shape[:-2], y.shape[:-2]) and within(full)

    y = chosen(c, values, alike(x), bounded, fits)
    if y is None or c.integer(0, 3) == 0:
        batched = x.ndim == 3 and not isinstance(x.shape[0], Rows)
        batch = [static(x.shape[0])] if batched and c.flag() else []
        y = r.weight(*batch, static(x.shape[-1]), c.pick([2, 3, 4]), dtype=x.dtype)
    if x.ndim == y.ndim == 3 and x.shape[0] == y.shape[0] and c.flag():
        return r.call(aten.bmm.default, x, y)
    return r.call(aten.matmul.default, x, y)


def gram(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Q K^T of two values, or of one with itself."""
    x = chosen(c, values, is_float, bounded, lambda x: x.ndim > 2 and 2 * volume(x.shape[:-1]) <= LARGEST)
    if x is None:
        return None
    y = chosen(c, values, alike(x), bounded, lambda y: y.shape[:-2] == x.shape[:-2] and y.shape[-1] == x.shape[-1])
    y = y or x
    rows = [d for z in (x, y) for d in z.shape[-2:] if isinstance(d, Rows)]
    if rows or not within((*x.shape[:-1], static(y.shape[-2]))):
        return None
    return r.call(aten.matmul.default, x, r.call(aten.transpose.int, y, -1, -2))


EQUATIONS = ("rfd,rgd->rfg", "rfd,rfd->rf", "rfd,rgd->rfgd", "rfd,de->rfe", "rd,re->rde", "rfd,fde->rfe", "rfd,rf->rd")
"""Letters in the order of the dims; r is any dim, perhaps the rows."""


def einsum(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    equation = c.pick(EQUATIONS)
    left, right = equation.split("->")[0].split(",")
    x = chosen(
        c, values, is_float, bounded, lambda x: x.ndim == len(left) and all(d in plain(x) for d in range(1, x.ndim))
    )
    if x is None:
        return None
    sizes = dict(zip(left, x.shape, strict=True))

    def fits(y: Handle) -> bool:
        """Letters of x have x's sizes; new ones do not count rows."""
        return y.ndim == len(right) and all(
            sizes.get(letter, size) == size and not (letter not in sizes and isinstance(size, Rows))
            for letter, size in zip(right, y.shape, strict=True)
        )

    y = None if "r" not in right and c.flag() else chosen(c, values, alike(x), bounded, fits)
    if y is None and not any(isinstance(sizes.get(letter, 4), Rows) for letter in right):
        y = r.weight(*(static(sizes.get(letter, 4)) for letter in right), dtype=x.dtype)
    if y is None:
        return None
    sizes.update(zip(right, y.shape, strict=True))
    if not within([sizes[letter] for letter in equation.split("->")[1]]):
        return None
    return r.call(aten.einsum.default, equation, [x, y])


def cross(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Cross layers, `x0 * (W x + b) + x`: products of sums of products, all of them pending."""
    x0 = chosen(c, values, is_float, bounded, lambda x: x.ndim > 1 and x.has_rows and plain(x)[-1:] == [x.ndim - 1])
    if x0 is None:
        return None
    x, width = x0, static(x0.shape[-1])
    for _ in range(c.integer(1, 2)):
        gate = r.call(aten.linear.default, x, r.weight(width, width, dtype=x.dtype), r.weight(width, dtype=x.dtype))
        x = r.call(aten.mul.Tensor, r.call(aten.add.Tensor, r.call(aten.mul.Tensor, x0, gate), x), 0.25)
    return r.call(aten.linear.default, x, r.weight(1, width, dtype=x.dtype)) if c.flag() else x


def symmetric(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """`Q K^T + K Q^T`: two pending products of the same operands, with their axes exchanged."""
    ready: Callable[[Handle], Any] = lambda x: x.ndim == 3 and x.shape[0] == Rows() and plain(x) == [1, 2]  # noqa: E731
    x = chosen(c, values, lambda x: x.dtype == DOUBLE, bounded, ready, lambda x: 2 * volume(x.shape) <= LARGEST)
    if x is None:
        return None
    y = chosen(c, values, alike(x), bounded, lambda y: y.shape == x.shape and y is not x) or r.context(
        *(static(size) for size in x.shape[1:])
    )
    scores = r.call(aten.bmm.default, x, r.call(aten.transpose.int, y, 1, 2))
    return r.call(aten.add.Tensor, scores, r.call(aten.transpose.int, scores, 1, 2))


def conv1d(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(
        c,
        values,
        is_float,
        bounded,
        lambda x: x.ndim == 3 and not isinstance(x.shape[1], Rows) and isinstance(x.shape[0], Rows),
    )
    if x is None or isinstance(x.shape[2], Rows):
        return None
    return r.call(
        aten.conv1d.default,
        x,
        r.weight(3, static(x.shape[1]), 1, dtype=x.dtype),
        *([r.weight(3, dtype=x.dtype)] if c.flag() else []),
    )


def rows_with_rows(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """`X^T X`: the sum over all rows, which is one number for all of them."""
    x = chosen(c, values, is_float, bounded, lambda x: x.ndim == 2 and x.shape[0] == Rows() and plain(x) == [1])
    if x is None:
        return None
    y = chosen(c, values, alike(x), bounded, lambda y: y.ndim == 2 and y.shape[0] == Rows() and plain(y) == [1]) or x
    return r.call(aten.matmul.default, r.call(aten.transpose.int, x, 0, 1), y)
