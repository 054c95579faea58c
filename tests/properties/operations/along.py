"""Reductions, softmax, normalisation, attention: along a dim."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from properties.choices import Choices
from properties.operations.fitting import bounded, chosen, is_float, plain, static, within
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows


def reduction(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, plain)
    if x is None:
        return None
    dims = [c.pick(plain(x))]
    if len(plain(x)) > 1 and c.flag():
        dims = plain(x)[:2]
    op = c.pick([aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default])
    return r.call(op, x, [d - x.ndim for d in dims] if c.flag() else dims, c.flag())


def softmax(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, plain)
    return x and r.call(c.pick([aten.softmax.int, aten.softmax.int, aten.log_softmax.int]), x, c.pick(plain(x)))


def layer_norm(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, lambda x: x.ndim and not isinstance(x.shape[-1], Rows))
    if x is None:
        return None
    dims = 2 if x.ndim > 1 and not isinstance(x.shape[-2], Rows) and c.flag() else 1
    shape = [static(size) for size in x.shape[-dims:]]
    if math.prod(shape) == 1:
        return None
    weight = r.weight(*shape) if c.flag() else None
    bias = r.weight(*shape) if weight is not None and c.flag() else None
    return r.call(aten.layer_norm.default, x, shape, weight, bias, 0.1)


def batch_norm(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, lambda x: x.ndim in (2, 3) and not isinstance(x.shape[1], Rows))
    if x is None:
        return None
    size = static(x.shape[1])
    variance = r.call(aten.abs.default, r.weight(size))
    affine = [r.weight(size), r.weight(size)] if c.flag() else [None, None]
    return r.call(aten.batch_norm.default, x, *affine, r.weight(size), variance, False, 0.1, 0.5, True)


def attention(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    ready: Callable[[Handle], Any] = lambda x: 2 < x.ndim < 5 and plain(x)[-2:] == [x.ndim - 2, x.ndim - 1]  # noqa: E731
    q = chosen(c, values, is_float, bounded, ready)
    if q is None:
        return None
    k = chosen(
        c, values, is_float, bounded, ready, lambda k: k.shape[:-2] == q.shape[:-2] and k.shape[-1] == q.shape[-1]
    )
    k = k or q
    v = chosen(c, values, is_float, bounded, ready, lambda v: v.shape[:-1] == k.shape[:-1]) or k
    if not within((*q.shape[:-1], static(k.shape[-2]))):
        return None
    wanted = (*q.shape[:-1], k.shape[-2])
    given = chosen(c, values, lambda m: m.dtype.itemsize == 1 or is_float(m), lambda m: m.shape == wanted)
    return r.call(aten.scaled_dot_product_attention.default, q, k, v, *([given] if given is not None else []))
