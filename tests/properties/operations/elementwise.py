"""Elementwise operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from properties.choices import Choices
from properties.operations.fitting import DOUBLE, LONG, bounded, broadcasts, chosen, is_float, static
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows

UNARY: tuple[Any, ...] = (
    aten.softplus.default, aten.elu.default, aten.hardtanh.default, aten.hardswish.default, aten.mish.default,
    aten.log_sigmoid.default, aten.selu.default, aten.erf.default, aten.cos.default, aten.atan.default,
    aten.log1p.default, aten.expm1.default, aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default,
    aten.exp.default, aten.log.default, aten.isnan.default, aten.zeros_like.default,
    aten.relu.default, aten.sigmoid.default, aten.tanh.default, aten.gelu.default, aten.silu.default, aten.abs.default,
    aten.leaky_relu.default, aten.sin.default, aten.neg.default, aten.clone.default,
)  # fmt: skip


def unary(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float)
    if x is None:
        return None
    op = c.pick(UNARY)
    if op in POSITIVE:  # and away from the pole
        x = r.call(aten.add.Tensor, r.call(aten.abs.default, x), 0.5)
    elif op in GROWING:
        x = r.call(aten.tanh.default, x)
    return r.call(op, x)


POSITIVE = {aten.log1p.default, aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default, aten.log.default}
GROWING = {aten.exp.default, aten.expm1.default}


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
    x = chosen(c, values, lambda x: x.dtype.itemsize == 8, lambda x: not is_float(x) or r.precision < 1e-12)
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
    """Integers to numbers, and numbers to coarser and finer ones; what is coarse is not compared any more."""
    x = chosen(c, values, lambda x: not is_float(x) or c.integer(0, 3) == 0)
    if x is None:
        return None
    types = (DOUBLE, DOUBLE, torch.float32) if is_float(x) else (DOUBLE, DOUBLE, LONG, torch.int32, torch.bool)
    if is_float(x) and bounded(x) and c.integer(0, 2) == 0:
        types = (torch.bfloat16, torch.float16)
    return r.call(aten._to_copy.default, x, dtype=c.pick(types))


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


def clamp(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Between two numbers, one of them perhaps missing."""
    x = chosen(c, values, lambda x: x.dtype != torch.bool)
    return x and r.call(aten.clamp.default, x, *c.pick([(-1, 1), (None, 1), (0, None), (-2, 0)]))


def compared(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ids compared with each other."""
    x = chosen(c, values, lambda x: x.dtype == LONG)
    y = x and chosen(c, values, lambda y: y.dtype == LONG and broadcasts(x.shape, y.shape))
    if x is None or y is None:
        return None
    op = c.pick([aten.eq.Tensor, aten.ne.Tensor, aten.lt.Tensor, aten.ge.Tensor, aten.maximum.default])
    return r.call(op, x, y)


def logic(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Masks joined, or turned round."""
    x = chosen(c, values, lambda x: x.dtype == torch.bool)
    if x is None:
        return None
    y = chosen(c, values, lambda y: y.dtype == torch.bool and broadcasts(x.shape, y.shape))
    if y is None or c.flag():
        return r.call(c.pick([aten.logical_not.default, aten.bitwise_not.default]), x)
    return r.call(c.pick([aten.logical_and.default, aten.logical_or.default, aten.bitwise_xor.Tensor]), x, y)


def remainder(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ids folded into a smaller range."""
    x = chosen(c, values, lambda x: x.dtype in (LONG, torch.int32))
    if x is None:
        return None
    if c.flag():
        return r.call(aten.div.Tensor_mode, x, c.integer(2, 4), rounding_mode="floor")
    return r.call(aten.remainder.Scalar, x, c.integer(2, 7))


def of_three(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """addcmul, addcdiv and lerp."""
    x = chosen(c, values, is_float, bounded)
    y = x and chosen(c, values, lambda y: y.dtype == x.dtype and broadcasts(x.shape, y.shape), bounded)
    if x is None or y is None:
        return None
    kind = c.integer(0, 2)
    if kind == 2:
        return r.call(aten.lerp.Scalar, x, y, c.pick([0.25, 0.75]))
    if kind == 1:
        divisor = r.call(aten.add.Tensor, r.call(aten.abs.default, y), 0.5)
        return r.call(aten.addcdiv.default, x, y, divisor, value=c.pick([1, -0.5]))
    return r.call(aten.addcmul.default, x, y, x, value=c.pick([1, 0.5]))
