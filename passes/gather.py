"""Gather: places chosen by a constant index, and embedding lookups.

x[:, i] keeps what is context and what is target apart; lookup(cat(c, t)) = cat(lookup(c), lookup(t))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rankopt import dims
from rankopt.axes import ROW, Group, Rows, Size, group_size
from rankopt.evaluate import force
from rankopt.expressions import Expr
from rankopt.operands import Operand, size_of
from rankopt.passes.elementwise import mul
from rankopt.passes.reductions import extremum, mean, sum_
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.structure import pick
from rankopt.values import Cat, Node, Part, Sum, Value, leaf
from rankopt.workspace import Workspace


def take(w: Workspace, x: Value, dim: int, places: np.ndarray[Any, Any], *, drop: bool = False) -> Value:
    """Constant places of one dim. With `drop` there is one place, and the dim disappears."""
    group = x.groups[dim]
    if ROW in group:
        raise Refusal("rows are selected")
    keep: tuple[Group, ...] = () if drop else ((),)
    if len(places) == 1:
        index = np.asarray(places, dtype=np.int64).reshape(())
        node = pick(w, x.node, group, index, ()) if group else x.node
        return Value((*x.groups[:dim], *keep, *x.groups[dim + 1 :]), node)
    if not len(places):
        raise Refusal("a dim has no elements")
    if not group:
        new: Group = (w.axes.fresh(len(places)),)
        return Value((*x.groups[:dim], new, *x.groups[dim + 1 :]), x.node)
    index, new = _as_blocks(w, np.asarray(places, dtype=np.int64), group)
    return Value((*x.groups[:dim], new, *x.groups[dim + 1 :]), pick(w, x.node, group, index, new))


def _as_blocks(w: Workspace, places: np.ndarray[Any, Any], group: Group) -> tuple[np.ndarray[Any, Any], Group]:
    """Places that are whole blocks of the minor axes keep those axes: a slice of fields stays `(field, width)`."""
    for keep in range(len(group) - 1, 0, -1):
        minor = group[-keep:]
        block = int(np.prod([axis.size for axis in minor]))
        if len(places) % block:
            continue
        blocks = places.reshape(-1, block)
        if (blocks[:, 0] % block == 0).all() and (blocks == blocks[:, :1] + np.arange(block)).all():
            major: Group = (w.axes.fresh(len(blocks)),) if len(blocks) > 1 else ()
            shape = [axis.size for axis in (*major, *minor)]
            return places.reshape(shape), (*major, *minor)
    return places, (w.axes.fresh(len(places)),)


@rule(aten.select.int, law="select(x, i) = x[i]; cat(c, t)[i] is an element of c or of t")
def select(w: Workspace, x: Value, dim: int, place: Size) -> Value:
    """One place of a dim, which disappears."""
    at = x.dim(dim)
    size = x.shape[at]
    if isinstance(size, Rows) or isinstance(place, Rows):
        raise Refusal("a row is selected")
    return take(w, x, at, np.array([place % size]), drop=True)


@rule(aten.slice.Tensor, law="cat(c, t)[i:j] = cat(c[i:j], t[i:j]), each at its places")
def slice_(
    w: Workspace, x: Value, dim: int = 0, start: Size | None = None, end: Size | None = None, step: int = 1
) -> Value:
    """A range of a dim; the whole range of rows is no slice at all."""
    at = x.dim(dim)
    size = x.shape[at]
    if isinstance(size, Rows):
        whole = (
            start in (None, 0) and step == 1 and (end is None or end == size or (isinstance(end, int) and end >= 2**62))
        )
        if not whole:
            raise Refusal("rows are sliced")
        return x
    if isinstance(start, Rows) or isinstance(end, Rows):
        raise Refusal("a slice as long as there are rows")
    return take(w, x, at, np.arange(size)[slice(start, end, step)])


@rule(aten.narrow.default, law="narrow(x, i, n) = x[i:i + n]")
def narrow(w: Workspace, x: Value, dim: int, start: int, length: Size) -> Value:
    """A range of a dim."""
    if isinstance(length, Rows):
        raise Refusal("rows are sliced")
    return slice_(w, x, dim, start, start + length)


@rule(aten.index_select.default, law="cat(c, t)[i] = cat(c[i], t[i]), each at its places")
def index_select(w: Workspace, x: Value, dim: int, index: Value) -> Value:
    """Places named by a constant index."""
    at = x.dim(dim)
    return take(w, x, at, _constant(index).reshape(-1) % _int(x.shape[at]))


def _constant(index: Value) -> np.ndarray[Any, Any]:
    if index.known is None:
        raise Refusal("the index is not a constant")
    return index.known.numpy()


def _int(size: Size) -> int:
    if isinstance(size, Rows):
        raise Refusal("rows are selected")
    return size


@rule(aten.index.Tensor, law="x[i, j] = merge(x)[i n_j + j] for constant i, j")
def index(w: Workspace, x: Value, indices: Sequence[Value | None]) -> Value:
    """`x[:, i, j]`: neighbouring dims indexed together, as when a triangle is taken from a Gram matrix."""
    dims_ = [dim for dim, i in enumerate(indices) if i is not None]
    if len(dims_) == 1 and x.groups[dims_[0]] == (ROW,) and row_step(indices[dims_[0]]) == 1:
        return x  # every row, by its number
    if not dims_ or dims_ != list(range(dims_[0], dims_[-1] + 1)):
        raise Refusal("the indexed dims are not neighbours")
    arrays = [_constant(i) for i in indices if i is not None]
    if any(array.dtype == np.bool_ for array in arrays):
        raise Refusal("a boolean index")
    shape = [_int(x.shape[dim]) for dim in dims_]
    arrays = [array % size for array, size in zip(np.broadcast_arrays(*arrays), shape, strict=True)]
    flat = np.ravel_multi_index(arrays, shape) if len(arrays) > 1 else arrays[0]
    first, last = dims_[0], dims_[-1]
    merged: Group = tuple(axis for dim in dims_ for axis in x.groups[dim])
    joined = Value((*x.groups[:first], merged, *x.groups[last + 1 :]), x.node)
    if flat.ndim == 0:
        return take(w, joined, first, flat.reshape(1), drop=True)
    picked = take(w, joined, first, flat.reshape(-1))
    if flat.ndim == 1:
        return picked
    inner = dims.view(w, Value((picked.groups[first],), picked.node), list(flat.shape))
    return Value((*picked.groups[:first], *inner.groups, *picked.groups[first + 1 :]), inner.node)


def row_step(index: Value | None) -> int | None:
    """`k`, if the value is `k * arange(R)`: the number of each row, as offsets and indices spell it."""
    operand = index.node.operand if isinstance(index, Value) and isinstance(index.node, Sum) else None
    if operand is None or index is None or index.groups != ((ROW,),) or operand.axes != (ROW,):
        return None
    return _step(operand.tensor)


def _step(tensor: Expr) -> int | None:
    target, args = tensor.target, tensor.args
    if target is aten.arange.default:
        return 1
    if target is aten.arange.start and args[0] == 0:
        return 1
    if target is aten.arange.start_step and args[0] == 0:
        step = args[2] if len(args) > 2 else 1
        return step if isinstance(step, int) else None
    if target in (aten.mul.Scalar, aten.mul.Tensor) and isinstance(args[1], int):
        inner = _step(args[0])
        return None if inner is None else inner * args[1]
    if target is aten._to_copy.default and not tensor.dtype.is_floating_point:
        return _step(args[0])
    return None


@rule(aten.embedding.default, law="lookup(cat(c, t)) = cat(lookup(c), lookup(t))")
def embedding(w: Workspace, table: Value, ids: Value, padding_idx: int = -1, *_: Any) -> Value:
    """Rows of a table, context ids once per request. The table itself is shared, never copied."""
    if any(axis is ROW for axis in table.axes):
        raise Refusal("the table has rows")
    table = dims.merge_dim(w, dims.merge_dim(w, table, 0), 1)
    weight = force(w, table.node)
    order = [group[0] for group in table.groups if group]
    if set(weight.axes) != set(order) or not table.groups[0]:
        raise Refusal("the table is constant along one of its dims")
    tensor = w.program.permute(weight.tensor, [weight.axes.index(axis) for axis in order])
    tensor = w.program.view(tensor, [group[0].size if group else 1 for group in table.groups])
    width = table.groups[1]

    def look_up(node: Node) -> Node:
        if isinstance(node, Cat):
            return Cat(node.axis, tuple(Part(p.positions, p.axes, look_up(p.node)) for p in node.parts))
        places = force(w, node)
        index = places.tensor
        if index.target is aten.reshape.default and index.dims == ():
            index = index.args[0]  # the id of a context field as it came, [1]: two views less
        shape = (*index.dims, tensor.dims[1])
        rows = w.program.call(aten.embedding.default, tensor, index, shape=shape, out=weight.dtype)
        axes = (*places.axes, *width)
        return leaf(Operand(w.program.view(rows, [size_of(axis) for axis in axes]), axes))

    found = Value((*ids.groups, width), look_up(ids.node))
    return dims.rename_value(found, {axis: w.axes.fresh(axis.size) for axis in width})


SUM, MAX = 0, 2
"""Modes of a bag; the one between is the mean."""


@rule(
    aten.embedding_bag.default, aten._embedding_bag.default, aten._embedding_bag_forward_only.default,
    law="bag(ids[N k]) = sum(lookup(ids[N, k])), or mean, or max",
)  # fmt: skip
def embedding_bag(
    w: Workspace,
    table: Value,
    ids: Value,
    offsets: Value,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    weights: Value | None = None,
    include_last_offset: bool = False,
    padding: int = -1,
) -> tuple[Value, None, None, None]:
    """Ids `[R * k]` with offsets `k * arange(R)` are `[R, k]`. What torch returns besides is for the backward pass."""
    step = row_step(offsets)
    inner = ids.groups[0][1:]
    if include_last_offset or step is None or ids.groups[0][:1] != (ROW,) or step != group_size(inner):
        raise Refusal("bags whose sizes are not known when compiling")
    bags = Value(((ROW,), inner), ids.node)
    rows = embedding(w, table, bags)  # [R, k, d]
    if padding >= 0:
        raise Refusal("bags with padding")
    if weights is not None:
        rows = mul(w, rows, Value(((ROW,), weights.groups[0][1:], ()), weights.node))
    if mode == MAX:
        found = extremum(w, rows, [1], False, aten.amax.default, aten.maximum.default)
    else:
        found = sum_(w, rows, 1) if mode == SUM else mean(w, rows, 1)
    return found, None, None, None


@rule(aten.embedding_bag.padding_idx, law="bag(ids[N k]) = sum(lookup(ids[N, k])), or mean, or max")
def embedding_bag_with_padding(
    w: Workspace, table: Value, ids: Value, offsets: Value, *options: Any
) -> tuple[Value, None, None, None]:
    """Here a padding of None is none, and one below zero counts from the end of the table."""
    *others, padding = options
    if padding is not None:
        raise Refusal("bags with padding")
    return embedding_bag(w, table, ids, offsets, *others)
