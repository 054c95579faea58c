"""Reductions, softmax, normalisation, attention: along a dim."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from properties.choices import Choices
from properties.operations.fitting import alike, apart, bounded, chosen, is_float, plain, static, within
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows


def reduction(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, plain)
    if x is None:
        return None
    dims = [c.pick(plain(x))]
    if len(plain(x)) > 1 and c.flag():
        dims = plain(x)[:2]
    op = c.pick([aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default, aten.logsumexp.default])
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
    weight = r.weight(*shape, dtype=x.dtype) if c.flag() else None
    bias = r.weight(*shape, dtype=x.dtype) if weight is not None and c.flag() else None
    return r.call(aten.layer_norm.default, x, shape, weight, bias, 0.1)


def batch_norm(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, lambda x: x.ndim in (2, 3) and not isinstance(x.shape[1], Rows))
    if x is None:
        return None
    size = static(x.shape[1])
    variance = r.call(aten.abs.default, r.weight(size, dtype=x.dtype))
    affine = [r.weight(size, dtype=x.dtype), r.weight(size, dtype=x.dtype)] if c.flag() else [None, None]
    return r.call(aten.batch_norm.default, x, *affine, r.weight(size, dtype=x.dtype), variance, False, 0.1, 0.5, True)


def attention(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    ready: Callable[[Handle], Any] = lambda x: 2 < x.ndim < 5 and plain(x)[-2:] == [x.ndim - 2, x.ndim - 1]  # noqa: E731
    q = chosen(c, values, is_float, bounded, ready, apart)
    if q is None:
        return None
    k = chosen(
        c, values, alike(q), bounded, ready, lambda k: k.shape[:-2] == q.shape[:-2] and k.shape[-1] == q.shape[-1]
    )
    k = k or q
    v = chosen(c, values, alike(q), bounded, ready, lambda v: v.shape[:-1] == k.shape[:-1]) or k
    if not within((*q.shape[:-1], static(k.shape[-2]))):
        return None
    wanted = (*q.shape[:-1], k.shape[-2])
    given = chosen(c, values, lambda m: m.dtype in (torch.bool, q.dtype), lambda m: m.shape == wanted)
    return r.call(aten.scaled_dot_product_attention.default, q, k, v, *([given] if given is not None else []))


def along_one(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ops along one dim that is no rows, counted from the front or the back."""
    x = chosen(c, values, is_float, plain)
    if x is None:
        return None
    dim = c.pick(plain(x)) - x.ndim * c.integer(0, 1)
    size, kind = static(x.shape[dim]), c.integer(0, 7)
    if kind == 0:
        return r.call(aten.cumsum.default, x, dim)
    if kind == 1:
        return r.call(aten.sort.default, x, dim, c.flag())[0]
    if kind == 2:
        return r.call(aten.topk.default, x, c.integer(1, size), dim)[0]
    if kind == 3:
        return r.call(c.pick([aten.max.dim, aten.min.dim]), x, dim, c.flag())[0]
    if kind == 4:
        return r.call(aten.linalg_vector_norm.default, x, c.pick([2, 1]), [dim], c.flag())
    if kind == 5:
        return r.call(aten.prod.dim_int, r.call(aten.tanh.default, x), dim, c.flag())
    if kind == 6:
        return r.call(aten.var.correction, x, [dim], correction=0, keepdim=c.flag())
    return r.call(aten.glu.default, x, dim) if size % 2 == 0 else None


def counted(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ids and masks summed, or asked for any and all, along dims."""
    x = chosen(c, values, lambda x: not is_float(x) and plain(x))
    if x is None:
        return None
    dim = c.pick(plain(x)) - x.ndim * c.integer(0, 1)
    if x.dtype == torch.bool and c.flag():
        return r.call(c.pick([aten.any.dim, aten.all.dim]), x, dim, c.flag())
    return r.call(aten.sum.dim_IntList, x, [dim], c.flag())


def rms_norm(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, lambda x: x.ndim and not isinstance(x.shape[-1], Rows))
    if x is None:
        return None
    weight = r.weight(static(x.shape[-1]), dtype=x.dtype) if c.flag() else None
    return r.call(aten.rms_norm.default, x, [static(x.shape[-1])], weight, 0.1)
