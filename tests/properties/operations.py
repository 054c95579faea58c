"""The ops that random programs are made of.

Each operation looks at the values that exist, chooses operands and parameters that fit, calls the op and returns the
new value; or None, where nothing fits. What is computed stays bounded, and never asks on which side of a threshold a
rounding error falls: rewriting may move the last bit of every number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from properties.choices import Choices
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows, Size

Operation = Callable[[Recorder, Choices, Sequence[Handle]], Handle | None]
LARGEST = 400
"""Elements per row that a value may have."""


def is_float(x: Handle) -> bool:
    return x.dtype.is_floating_point


def static(size: Size) -> int:
    return size.times if isinstance(size, Rows) else size


def volume(shape: Sequence[Size]) -> int:
    return math.prod(static(size) for size in shape)


def plain(x: Handle) -> list[int]:
    """The dims that do not count rows."""
    return [dim for dim, size in enumerate(x.shape) if not isinstance(size, Rows)]


def chosen(c: Choices, values: Sequence[Handle], *conditions: Callable[[Handle], Any]) -> Handle | None:
    """One of the values that meet the conditions, the latest preferred."""
    fit = [x for x in values if all(condition(x) for condition in conditions)]
    return fit[-1 - c.integer(0, min(len(fit) - 1, c.integer(1, 6)))] if fit else None


def within(shape: Sequence[Size]) -> bool:
    """Whether a value of this shape is small enough."""
    return volume(shape) <= LARGEST


def divisors(size: int) -> list[int]:
    return [d for d in range(1, size + 1) if size % d == 0]


# ------------------------------------------------------------------------------------------------------ movement


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
    return x and r.call(aten.flip.default, x, [c.integer(0, x.ndim - 1)])


# ------------------------------------------------------------------------------------------------------ picking


def select(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, plain)
    if x is None:
        return None
    dim = c.pick(plain(x))
    return r.call(aten.select.int, x, dim, c.integer(-static(x.shape[dim]), static(x.shape[dim]) - 1))


def slice_(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, plain)
    if x is None:
        return None
    dim = c.pick(plain(x))
    size = static(x.shape[dim])
    start = c.integer(0, size - 1)
    end = c.pick([start + 1, size, 2**63 - 1]) if start + 1 < size else size
    return r.call(aten.slice.Tensor, x, dim, start, end, c.integer(1, 2))


def index_select(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, plain)
    if x is None:
        return None
    dim = c.pick(plain(x))
    size = static(x.shape[dim])
    places = [c.integer(0, size - 1) for _ in range(c.integer(1, 5))]
    return r.call(aten.index_select.default, x, dim, r.constant(places))


def index(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """One dim or two neighbours at constant places, as a triangle is taken from a Gram matrix."""
    x = chosen(c, values, plain)
    if x is None:
        return None
    first = c.pick(plain(x))
    count = 2 if first + 1 in plain(x) and c.flag() else 1
    length = c.integer(1, 6)
    lists = [[c.integer(0, static(x.shape[first + i]) - 1) for _ in range(length)] for i in range(count)]
    if length == 6 and c.flag():
        lists = [[places[:3], places[3:]] for places in lists]  # type: ignore[misc]
    return r.call(aten.index.Tensor, x, [None] * first + [r.constant(places) for places in lists])


def triangle(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Fields times fields, and the pairs of different ones."""
    x = chosen(c, values, is_float, lambda x: x.ndim == 3 and 1 < static(x.shape[1]) <= 6 and plain(x) == [1, 2])
    if x is None:
        return None
    gram = r.call(aten.bmm.default, x, r.call(aten.transpose.int, x, 1, 2))
    pairs = [(i, j) for i in range(static(x.shape[1])) for j in range(i)]
    left, right = ([pair[k] for pair in pairs] for k in range(2))
    return r.call(aten.index.Tensor, gram, [None, r.constant(left), r.constant(right)])


def split(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, plain)
    if x is None:
        return None
    dim = c.pick(plain(x))
    size = static(x.shape[dim])
    kind = c.integer(0, 3)
    if kind == 0:
        return c.pick(r.call(aten.unbind.int, x, dim))
    if kind == 1:
        return c.pick(r.call(aten.split.Tensor, x, c.integer(1, size), dim))
    if kind == 2:
        return c.pick(r.call(aten.chunk.default, x, c.integer(1, 3), dim))
    cut = c.integer(1, size)
    sizes = [cut, size - cut] if cut < size else [size]
    return c.pick(r.call(aten.split_with_sizes.default, x, sizes, dim))


def cat(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Some values side by side that agree in all other dims; the same one perhaps twice."""
    x = chosen(c, values, lambda x: x.ndim)
    if x is None:
        return None
    dim = c.integer(0, x.ndim - 1)
    rest = [*x.shape[:dim], *x.shape[dim + 1 :]]

    def fits(y: Handle) -> bool:
        agrees = y.ndim == x.ndim and [*y.shape[:dim], *y.shape[dim + 1 :]] == rest
        return agrees and isinstance(y.shape[dim], Rows) == isinstance(x.shape[dim], Rows)

    xs = [x]
    for _ in range(c.integer(1, 3)):
        y = chosen(c, values, fits)
        if y is not None and volume([*rest, sum(static(z.shape[dim]) for z in (*xs, y))]) <= LARGEST:
            xs.insert(c.integer(0, len(xs)), y)
    return r.call(aten.cat.default, xs, dim)


def stack(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, lambda x: x.ndim < 4 and volume(x.shape) <= LARGEST // 3)
    if x is None:
        return None
    others = [chosen(c, values, lambda y: y.shape == x.shape) or x for _ in range(c.integer(0, 2))]
    return r.call(aten.stack.default, [x, *others], c.integer(-1 - x.ndim, x.ndim))


def embedding(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    ids = chosen(c, values, lambda x: not is_float(x) and x.dtype.itemsize == 8 and int(x.tensors[0].min()) >= 0)
    if ids is None:
        return None
    high = 1 + max(int(t.max()) for t in ids.tensors)
    if high > 40 or not within((*ids.shape, 4)):
        return None
    return r.call(aten.embedding.default, r.weight(max(high, 8), c.pick([4, 4, 3, 1])), ids)


# ------------------------------------------------------------------------------------------------------ elementwise


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


def bounded(x: Handle) -> bool:
    return not x.tensors[0].numel() or float(x.tensors[0].abs().max()) < 1e3


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


def broadcasts(x: Sequence[Size], y: Sequence[Size]) -> bool:
    """Whether two shapes broadcast, to something that is not too large."""
    ndim = max(len(x), len(y))
    pairs = list(zip([1] * (ndim - len(x)) + list(x), [1] * (ndim - len(y)) + list(y), strict=True))
    return all(a == b or 1 in (a, b) for a, b in pairs) and within([b if a == 1 else a for a, b in pairs])


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


# ------------------------------------------------------------------------------------------------------ products


def linear(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    x = chosen(c, values, is_float, bounded, lambda x: x.ndim > 1 and not isinstance(x.shape[-1], Rows))
    if x is None:
        return None
    inner, outer = static(x.shape[-1]), c.pick([4, 3, 6, 1])
    weight = r.weight(outer, inner)
    if x.ndim == 2 and c.integer(0, 3) == 0:
        y = r.call(aten.permute.default, weight, [1, 0])
        return r.call(aten.addmm.default, r.weight(outer), x, y) if c.flag() else r.call(aten.mm.default, x, y)
    return r.call(aten.linear.default, x, weight, *([r.weight(outer)] if c.flag() else []))


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

    y = chosen(c, values, is_float, bounded, fits)
    if y is None or c.integer(0, 3) == 0:
        batched = x.ndim == 3 and not isinstance(x.shape[0], Rows)
        batch = [static(x.shape[0])] if batched and c.flag() else []
        y = r.weight(*batch, static(x.shape[-1]), c.pick([2, 3, 4]))
    if x.ndim == y.ndim == 3 and x.shape[0] == y.shape[0] and c.flag():
        return r.call(aten.bmm.default, x, y)
    return r.call(aten.matmul.default, x, y)


def gram(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Q K^T of two values, or of one with itself."""
    x = chosen(c, values, is_float, bounded, lambda x: x.ndim > 2 and 2 * volume(x.shape[:-1]) <= LARGEST)
    if x is None:
        return None
    y = chosen(c, values, is_float, bounded, lambda y: y.shape[:-2] == x.shape[:-2] and y.shape[-1] == x.shape[-1])
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

    y = None if "r" not in right and c.flag() else chosen(c, values, is_float, bounded, fits)
    if y is None and not any(isinstance(sizes.get(letter, 4), Rows) for letter in right):
        y = r.weight(*(static(sizes.get(letter, 4)) for letter in right))
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
        gate = r.call(aten.linear.default, x, r.weight(width, width), r.weight(width))
        x = r.call(aten.mul.Tensor, r.call(aten.add.Tensor, r.call(aten.mul.Tensor, x0, gate), x), 0.25)
    return r.call(aten.linear.default, x, r.weight(1, width)) if c.flag() else x


def symmetric(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """`Q K^T + K Q^T`: two pending products of the same operands, with their axes exchanged."""
    ready: Callable[[Handle], Any] = lambda x: x.ndim == 3 and x.shape[0] == Rows() and plain(x) == [1, 2]  # noqa: E731
    x = chosen(c, values, is_float, bounded, ready, lambda x: 2 * volume(x.shape) <= LARGEST)
    if x is None:
        return None
    y = chosen(c, values, is_float, bounded, lambda y: y.shape == x.shape and y is not x) or r.context(
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
    return r.call(aten.conv1d.default, x, r.weight(3, static(x.shape[1]), 1), *([r.weight(3)] if c.flag() else []))


# ------------------------------------------------------------------------------------------------------ along dims


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


# ------------------------------------------------------------------------------------------------------ opaque


def opaque(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ops without a law, some of which mix rows."""
    x = chosen(c, values, is_float, lambda x: x.ndim and x.has_rows and x.tensors[0].numel())
    if x is None:
        return None
    rows = next(d for d, size in enumerate(x.shape) if isinstance(size, Rows))
    kind = c.integer(0, 5)
    if kind == 0:
        return r.call(aten.cumsum.default, x, c.integer(0, x.ndim - 1))
    if kind == 1:
        return r.call(aten.mean.dim, x, [rows], c.flag())
    if kind == 2:
        return r.call(aten.sort.default, x, c.integer(0, x.ndim - 1))[0]
    if kind == 3 and plain(x):
        return r.call(aten.topk.default, x, 1, c.pick(plain(x)))[0]
    if kind == 4:
        return r.call(aten.roll.default, x, [1], [c.integer(0, x.ndim - 1)])
    return r.call(aten.amax.default, x, [rows], True)


DOUBLE = torch.float64
LONG = torch.int64

OPERATIONS: tuple[Operation, ...] = (
    cat, linear, refold, binary, select, index_select, reduction, matmul, unary, permute, stack, embedding, gram,
    softmax, layer_norm, einsum, slice_, flatten, transpose, unsqueeze, squeeze, expand, repeat, repeat_interleave,
    flip, index, triangle, split, square, by_number, with_parameter, mask, where, cast, integers, filled, conv1d,
    batch_norm, attention, cross, cross, symmetric, opaque, cat, linear, binary, refold, cat,
)  # fmt: skip
"""What is listed twice is drawn twice as often."""
