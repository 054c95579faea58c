"""Reshapes, permutations and repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from properties.choices import Choices
from properties.operations.fitting import LARGEST, chosen, divisors, is_float, plain, static, volume
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows


def refold(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """A random reshape: dims merged or split, rows folded with their neighbours."""
    x = chosen(c, values, lambda x: x.ndim and x.ndim - len(plain(x)) < 2)
    if x is None:
        return None
    sizes = list(x.shape)
    for _ in range(c.integer(1, 3)):
        at = c.integer(0, len(sizes) - 1)
        if c.flag() and at + 1 < len(sizes):
            merged = static(sizes[at]) * static(sizes[at + 1])
            rows = isinstance(sizes[at], Rows) or isinstance(sizes[at + 1], Rows)
            sizes[at : at + 2] = [Rows(merged) if rows else merged]
        elif static(sizes[at]) > 1:
            part = c.pick(divisors(static(sizes[at])))
            other = static(sizes[at]) // part
            if isinstance(sizes[at], Rows):
                sizes[at : at + 1] = [Rows(part), other] if c.flag() else [part, Rows(other)]
            else:
                sizes[at : at + 1] = [part, other]
    given: list[Any] = list(sizes)
    if c.flag():
        given[c.integer(0, len(sizes) - 1)] = -1
    return r.call(aten.reshape.default, x, given)


def flatten(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim > 1 and x.ndim - len(plain(x)) < 2)
    if x is None:
        return None
    start = c.integer(0, x.ndim - 2)
    return r.call(aten.flatten.using_ints, x, start, c.integer(start, x.ndim - 1))


def permute(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim > 1)
    if x is None:
        return None
    order = list(range(x.ndim))
    at = c.integer(0, x.ndim - 2)
    order.insert(c.integer(0, x.ndim - 1), order.pop(at))
    return r.call(aten.permute.default, x, [dim - x.ndim * c.integer(0, 1) for dim in order])


def transpose(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim > 1)
    return x and r.call(aten.transpose.int, x, c.integer(-x.ndim, -1), c.integer(0, x.ndim - 1))


def unsqueeze(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim < 5)
    return x and r.call(aten.unsqueeze.default, x, c.integer(-1 - x.ndim, x.ndim))


def squeeze(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: 1 in x.shape)
    return x and r.call(aten.squeeze.dim, x, c.pick([d for d, size in enumerate(x.shape) if size == 1]))


def expand(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: 1 in x.shape or not x.has_rows)
    if x is None:
        return None
    sizes = [c.pick([1, 2, 3, -1]) if size == 1 else c.pick([-1, size]) for size in x.shape]
    if not x.has_rows and c.flag():
        sizes = [Rows(), *sizes]
    return r.call(aten.expand.default, x, sizes)


def repeat(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: volume(x.shape) <= LARGEST // 6)
    if x is None:
        return None
    times: list[Any] = [1] * x.ndim
    if times:
        times[c.integer(0, x.ndim - 1)] = c.integer(2, 3)
    if not x.has_rows and c.flag():
        times = [Rows(), *times]
    elif c.flag() or not times:
        times = [c.integer(1, 2), *times]
    return r.call(aten.repeat.default, x, times)


def repeat_interleave(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim and volume(x.shape) <= LARGEST // 3)
    return x and r.call(aten.repeat_interleave.self_int, x, c.integer(1, 3), c.integer(0, x.ndim - 1))


def flip(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim)
    return x and r.call(aten.flip.default, x, sorted({c.integer(0, x.ndim - 1), c.integer(0, x.ndim - 1)}))


def roll(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim)
    return x and r.call(aten.roll.default, x, [c.pick([1, -1, 2, 5])], [c.integer(-x.ndim, x.ndim - 1)])


def movedim(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim > 1)
    return x and r.call(aten.movedim.int, x, c.integer(-x.ndim, x.ndim - 1), c.integer(-x.ndim, x.ndim - 1))


def unflatten(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, plain)
    if x is None:
        return None
    dim = c.pick(plain(x))
    part = c.pick(divisors(static(x.shape[dim])))
    sizes = [c.pick([part, -1]), static(x.shape[dim]) // part]
    return r.call(aten.unflatten.int, x, dim - x.ndim if c.flag() else dim, sizes)


def windows(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Windows along a dim, at every step or every other."""
    x = chosen(c, values, plain, lambda x: volume(x.shape) <= LARGEST // 3)
    if x is None:
        return None
    dim = c.pick(plain(x))
    size = c.integer(1, min(3, static(x.shape[dim])))
    return r.call(aten.unfold.default, x, dim - x.ndim if c.flag() else dim, size, c.integer(1, 2))


def padded(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Zeros or another number before and behind the last dim; something cut off where there is enough."""
    x = chosen(c, values, is_float, lambda x: x.ndim and not isinstance(x.shape[-1], Rows))
    if x is None:
        return None
    before = c.pick([0, 1, 2, -1]) if static(x.shape[-1]) > 1 else c.integer(0, 2)
    return r.call(aten.constant_pad_nd.default, x, [before, c.integer(0, 1)], c.pick([0.0, 1.5]))


def diagonal(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: len(plain(x)) > 1)
    if x is None:
        return None
    return r.call(aten.diagonal.default, x, c.integer(0, 1) * (static(x.shape[plain(x)[1]]) > 1), *plain(x)[:2])
