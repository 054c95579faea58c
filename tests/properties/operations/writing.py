"""Writes into a part of a value, as capture leaves assignments: scatters, index_put, slices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from properties.choices import Choices
from properties.operations.fitting import alike, apart, bounded, broadcasts, chosen, is_float, plain, static
from properties.operations.picking import places_of
from properties.recorder import Handle, Recorder, aten


def assigned(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """`x[..., i, ...] = y`, or a slice of x."""
    x = chosen(c, values, is_float, bounded, plain, apart)
    if x is None:
        return None
    dim = c.pick(plain(x))
    size = static(x.shape[dim])
    rest = (*x.shape[:dim], *x.shape[dim + 1 :])
    if c.flag():
        at = c.integer(-size, size - 1)
        y = chosen(c, values, alike(x), lambda y: y.shape == rest) or r.call(aten.select.int, x, dim, 0)
        return r.call(aten.select_scatter.default, x, y, dim, at)
    start = c.integer(0, size - 1)
    y = r.call(aten.mul.Tensor, r.call(aten.slice.Tensor, x, dim, start, size), -2.0)
    other = chosen(c, values, alike(x), lambda other: other.shape == y.shape)
    return r.call(aten.slice_scatter.default, x, y if other is None else other, dim, start, size)


def masked_write(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """`x[mask] = number`, the mask over the first dims or over all of them."""
    x = chosen(c, values, is_float, apart, lambda x: x.ndim)
    if x is None:
        return None
    mask = chosen(c, values, lambda y: y.dtype == torch.bool and y.ndim and y.shape == x.shape[: y.ndim])
    if mask is None:
        mask = r.call(aten.gt.Scalar, r.call(aten.zeros_like.default, x), c.pick([-1.0, 1.0]))
    number = r.weight(dtype=x.dtype)
    return r.call(aten.index_put.default, x, [mask], number)


def placed(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """`x[:, places] = y` or `+= y`: constant places, from the front or the back, none of them twice."""
    x = chosen(c, values, is_float, bounded, plain, apart)
    if x is None:
        return None
    dim = c.pick(plain(x))
    size = static(x.shape[dim])
    places = sorted({c.integer(0, size - 1) for _ in range(c.integer(1, 3))})
    if c.flag():
        places = [place - size for place in places]
    shape = (*x.shape[:dim], len(places), *x.shape[dim + 1 :])
    y = chosen(c, values, alike(x), lambda y: broadcasts(shape, y.shape) and y.ndim <= x.ndim and _into(y, shape))
    given = r.weight(dtype=x.dtype) if y is None else y
    return r.call(aten.index_put.default, x, [None] * dim + [r.constant(places)], given, c.flag())


def _into(y: Handle, shape: Sequence[object]) -> bool:
    """Whether y broadcasts to a shape, and not the shape to y."""
    return all(size in (1, wanted) for size, wanted in zip(reversed(y.shape), reversed(shape), strict=False))


def scattered(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Values written or added where the data say."""
    x = chosen(c, values, is_float, bounded, plain, apart)
    if x is None:
        return None
    dim = c.pick(plain(x))
    places = places_of(r, c, values, x, dim)
    if places is None:
        return None
    if c.flag():
        return r.call(aten.scatter_add.default, x, dim - x.ndim, places, r.call(aten.neg.default, x))
    return r.call(aten.scatter.value, x, dim, places, c.pick([0, 2.5]))
