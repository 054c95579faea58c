"""Elementwise operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from properties.choices import Choices
from properties.operations.fitting import DOUBLE, LONG, bounded, broadcasts, chosen, is_float, static
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows

UNARY: tuple[Any, ...] = (
    aten.relu.default, aten.sigmoid.default, aten.tanh.default, aten.gelu.default, aten.silu.default, aten.abs.default,
    aten.leaky_relu.default, aten.sin.default, aten.neg.default, aten.clone.default,
)  # fmt: skip


def unary(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float)
    return x and r.call(c.pick(UNARY), x)


def square(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, bounded)
    if x is None:
        return None
    return r.call(aten.square.default, x) if c.flag() else r.call(aten.pow.Tensor_Scalar, x, c.pick([2, 3, 1, 2.0]))


def by_number(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.dtype.itemsize == 8, bounded)
    if x is None:
        return None
    number = c.pick([2, 3, -1]) if not is_float(x) or c.flag() else c.pick([0.5, -1.5, 0.1])
    ops = (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar, aten.clamp_min.default)
    op = c.pick((*ops, aten.div.Tensor) if is_float(x) else ops)
    return r.call(op, x, number)


def binary(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, bounded)
    y = x and chosen(c, values, is_float, bounded, lambda y: broadcasts(x.shape, y.shape))
    if x is None or y is None:
        return None
    kind = c.integer(0, 4)
    if kind == 4:
        divisor = r.call(aten.add.Tensor, r.call(aten.square.default, y), 0.5)
        return r.call(aten.div.Tensor, x, divisor)
    if kind == 3:
        return r.call(c.pick([aten.maximum.default, aten.minimum.default]), x, y)
    if c.integer(0, 3) == 0 and kind < 2:
        return r.call((aten.add.Tensor, aten.sub.Tensor)[kind], x, y, alpha=c.pick([2, -0.5]))
    return r.call((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)[kind], x, y)


def with_parameter(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """A bias, or a scale per element of the last dims."""
    x = chosen(c, values, is_float, lambda x: x.ndim and not isinstance(x.shape[-1], Rows), bounded)
    if x is None:
        return None
    dims = 2 if x.ndim > 1 and not isinstance(x.shape[-2], Rows) and c.flag() else 1
    shape = [static(size) for size in x.shape[-dims:]]
    return r.call(c.pick([aten.add.Tensor, aten.mul.Tensor]), x, r.weight(*shape))


def mask(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ids or inputs compared with a number: a boolean, or the numbers 0 and 1."""
    x = chosen(c, values, lambda x: x.dtype.itemsize == 8)
    if x is None:
        return None
    found = r.call(aten.gt.Scalar, x, 0.31830988)
    return r.call(aten._to_copy.default, found, dtype=c.pick([DOUBLE, LONG])) if c.flag() else found


def where(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float)
    if x is None:
        return None
    condition = chosen(c, values, lambda y: y.dtype.itemsize == 1 and broadcasts(x.shape, y.shape))
    if condition is None:
        return None
    if c.flag() and len(condition.shape) <= x.ndim:
        return r.call(aten.masked_fill.Scalar, x, condition, c.pick([0, -3.5]))
    other = chosen(c, values, is_float, lambda y: broadcasts(x.shape, y.shape)) or x
    if not broadcasts(condition.shape, other.shape):
        other = x
    return r.call(aten.where.self, condition, x, other)


def cast(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: not is_float(x))
    return x and r.call(aten._to_copy.default, x, dtype=DOUBLE)


def integers(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ids with offsets into one table."""
    x = chosen(c, values, lambda x: x.dtype.itemsize == 8 and not is_float(x), bounded)
    if x is None:
        return None
    if x.ndim and not isinstance(x.shape[-1], Rows) and c.flag():
        return r.call(aten.add.Tensor, x, r.constant([4 * i for i in range(static(x.shape[-1]))]))
    y = chosen(c, values, lambda y: y.dtype == x.dtype and broadcasts(x.shape, y.shape), bounded)
    return y and r.call(c.pick([aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor]), x, y)


def filled(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """A constant with rows, as sums start with."""
    kind = c.integer(0, 3)
    like = chosen(c, values, lambda x: x.dtype == DOUBLE)
    if kind == 0 and like is not None:
        return r.call(c.pick([aten.zeros_like.default, aten.ones_like.default]), like)
    if kind == 1:
        numbers = r.call(aten.arange.default, Rows(), dtype=DOUBLE)
        return r.call(aten.reshape.default, r.call(aten.sin.default, numbers), [Rows(), 1])
    shape = [Rows(), *[c.pick([1, 2, 3, 4]) for _ in range(c.integer(0, 2))]]
    return r.call(aten.full.default, shape, c.pick([0.0, 1.0, 0.3]), dtype=DOUBLE)
