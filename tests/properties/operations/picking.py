"""Parts of values, and values side by side."""

from __future__ import annotations

from collections.abc import Sequence

from properties.choices import Choices
from properties.operations.fitting import LARGEST, LONG, chosen, is_float, plain, static, volume, within
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows


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
    if not within((*ids.shape, 4)):
        return None
    if high > 8:  # other rows may reach higher still
        ids = r.call(aten.remainder.Scalar, ids, 8)
    return r.call(aten.embedding.default, r.weight(16, c.pick([4, 4, 3, 1])), ids)


def from_the_back(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Constant places that count from the back, along one dim."""
    x = chosen(c, values, plain)
    if x is None:
        return None
    dim = c.pick(plain(x))
    size = static(x.shape[dim])
    places = [c.integer(-size, size - 1) for _ in range(c.integer(1, 4))]
    return r.call(aten.index.Tensor, x, [None] * dim + [r.constant(places)])


def places_of(r: Recorder, c: Choices, values: Sequence[Handle], x: Handle, dim: int) -> Handle | None:
    """Ids of the data as places along a dim of x, as gather and scatter take them."""
    ids = chosen(c, values, lambda y: y.dtype == LONG and y.shape == x.shape)
    if ids is None:
        ids = chosen(c, values, lambda y: y.dtype == LONG and y.shape == (Rows(),))
        if ids is None or x.shape[0] != Rows() or dim == 0:
            return None
        ids = r.call(aten.reshape.default, ids, [Rows(), *[1] * (x.ndim - 1)])
        ids = r.call(aten.expand.default, ids, [-1, *[1 if d == dim else x.shape[d] for d in range(1, x.ndim)]])
    return r.call(aten.remainder.Scalar, ids, static(x.shape[dim]))


def gather(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Places that the data name, along a dim that is counted from the back."""
    x = chosen(c, values, plain)
    if x is None:
        return None
    dim = c.pick(plain(x))
    places = places_of(r, c, values, x, dim)
    if places is None:
        return None
    return r.call(aten.gather.default, x, dim - x.ndim if c.flag() else dim, places)


def by_data(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """`x[:, ids]` and `table[ids]` with ids of the data: every row by every row's ids, or the rows of a weight."""
    ids = chosen(c, values, lambda y: y.dtype == LONG and volume(y.shape) <= LARGEST // 6)
    if ids is None:
        return None
    if c.flag():
        places = r.call(aten.remainder.Scalar, ids, 5)
        return r.call(aten.index.Tensor, r.weight(5, c.pick([2, 3])), [places])
    x = chosen(c, values, plain, lambda x: not x.has_rows or not ids.has_rows)
    if x is None:
        return None
    dim = c.pick(plain(x))
    if not within((*x.shape, *ids.shape)):
        return None
    places = r.call(aten.remainder.Scalar, ids, static(x.shape[dim]))
    return r.call(aten.index.Tensor, x, [None] * dim + [places])
