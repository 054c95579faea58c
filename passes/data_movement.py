"""Data movement: reshape, permute, cat, split. Nothing is computed, so nothing is emitted: axes are renamed.

f(expand(c)) = expand(f(c)) for every f that only moves elements
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rankopt import dims
from rankopt.axes import ROW, Group, Rows, Size
from rankopt.dims import from_tensor
from rankopt.operands import Operand
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.structure import pick
from rankopt.values import Value, leaf
from rankopt.workspace import Workspace


@rule(
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.detach_.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    law="id(x) = x",
)
def same(w: Workspace, x: Value, p: float = 0.0, train: bool = False, **_: Any) -> Value:
    """Copies, and dropout in eval mode."""
    if train is True and p:
        raise Refusal("dropout in training mode")
    return x


@rule(
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.view_as.default,
    aten.reshape_as.default,
    law="reshape(expand(c)) = expand(reshape(c)): axes (f)(d) as (f, d)",
)
def view(w: Workspace, x: Value, shape: Sequence[Size] | Value) -> Value:
    """`[R, F, D] -> [R, F * D]` is the group `(f, d)`; a view that cuts across axes refines or merges them."""
    return dims.view(w, x, shape.shape if isinstance(shape, Value) else list(shape))


@rule(aten.flatten.using_ints, law="flatten(expand(c)) = expand(flatten(c)): axes (f)(d) as (f, d)")
def flatten(w: Workspace, x: Value, start: int = 0, end: int = -1) -> Value:
    """Neighbouring dims become one."""
    if not x.ndim:
        return Value(((),), x.node, x.known)
    first, last = x.dim(start), x.dim(end)
    merged = tuple(axis for group in x.groups[first : last + 1] for axis in group)
    return Value((*x.groups[:first], merged, *x.groups[last + 1 :]), x.node)


@rule(aten.unflatten.int, law="unflatten(expand(c)) = expand(unflatten(c)): axes (f, d) as (f)(d)")
def unflatten(w: Workspace, x: Value, dim: int, shape: Sequence[Size]) -> Value:
    """One dim becomes several."""
    at = x.dim(dim)
    inner = dims.view(w, Value((x.groups[at],), x.node), shape)
    return Value((*x.groups[:at], *inner.groups, *x.groups[at + 1 :]), inner.node)


@rule(aten.transpose.int, aten.swapaxes.default, law="transpose(expand(c)) = expand(transpose(c))")
def transpose(w: Workspace, x: Value, first: int, second: int) -> Value:
    """Two dims change places."""
    groups = list(x.groups)
    if groups:
        a, b = x.dim(first), x.dim(second)
        groups[a], groups[b] = groups[b], groups[a]
    return Value(tuple(groups), x.node)


@rule(aten.t.default, aten.numpy_T.default, law="transpose(expand(c)) = expand(transpose(c))")
def reverse(w: Workspace, x: Value) -> Value:
    """`x.t()` of a matrix, `x.T` of any tensor."""
    return Value(x.groups[::-1], x.node)


@rule(aten.mT.default, aten.adjoint.default, aten.mH.default, law="transpose(expand(c)) = expand(transpose(c))")
def matrix_transpose(w: Workspace, x: Value) -> Value:
    """`x.mT`: each matrix of a batch transposed."""
    if x.dtype.is_complex:
        raise Refusal("a conjugate")
    return transpose(w, x, -1, -2)


@rule(aten.permute.default, law="permute(expand(c)) = expand(permute(c))")
def permute(w: Workspace, x: Value, order: Sequence[int]) -> Value:
    """Dims in another order."""
    return Value(tuple(x.groups[x.dim(dim)] for dim in order), x.node)


@rule(aten.movedim.int, aten.movedim.intlist, law="movedim(expand(c)) = expand(movedim(c))")
def movedim(w: Workspace, x: Value, source: int | list[int], destination: int | list[int]) -> Value:
    """Some dims move, the others keep their order."""
    sources = [x.dim(d) for d in ([source] if isinstance(source, int) else source)]
    targets = [x.dim(d) for d in ([destination] if isinstance(destination, int) else destination)]
    rest = iter(dim for dim in range(x.ndim) if dim not in sources)
    moved = dict(zip(targets, sources, strict=True))
    return Value(tuple(x.groups[moved[d] if d in moved else next(rest)] for d in range(x.ndim)), x.node)


@rule(aten.unsqueeze.default, law="(un)squeeze(expand(c)) = expand((un)squeeze(c))")
def unsqueeze(w: Workspace, x: Value, dim: int) -> Value:
    """A new dim of size one."""
    at = dim % (x.ndim + 1)
    return Value((*x.groups[:at], (), *x.groups[at:]), x.node)


@rule(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, law="(un)squeeze(expand(c)) = expand((un)squeeze(c))")
def squeeze(w: Workspace, x: Value, dim: int | Sequence[int] | None = None) -> Value:
    """Dims of size one disappear. The row dim never does: its size is not known when compiling."""
    chosen = range(x.ndim) if dim is None else [x.dim(d) for d in ([dim] if isinstance(dim, int) else dim)]
    return Value(tuple(g for d, g in enumerate(x.groups) if g or d not in chosen), x.node)


@rule(aten.expand.default, aten.expand_as.default, law="expand(expand(c)) = expand(c)")
def expand(w: Workspace, x: Value, shape: Sequence[Size] | Value, **_: Any) -> Value:
    """Dims of size one grow; nothing is copied, and nothing is emitted."""
    sizes = shape.shape if isinstance(shape, Value) else tuple(shape)
    groups: list[Group] = [()] * (len(sizes) - x.ndim) + list(x.groups)
    for dim, size in enumerate(sizes):
        if groups[dim] or size in (-1, 1):
            continue
        if isinstance(size, Rows):
            groups[dim] = _rows(w, groups, size)
        else:
            groups[dim] = (w.axes.fresh(size),)
    return Value(tuple(groups), x.node)


def _rows(w: Workspace, groups: Sequence[Group], size: Rows) -> Group:
    if any(ROW in group for group in groups) or size.times != 1:
        raise Refusal("a second dim of rows")
    return (ROW,)


@rule(aten.repeat.default, law="repeat(x, k) = merge(expand(x, k))")
def repeat(w: Workspace, x: Value, times: Sequence[Size]) -> Value:
    """Tiles: `(k, a)` is the group of a dim of `a` that is repeated k times."""
    groups: list[Group] = [()] * (len(times) - x.ndim) + list(x.groups)
    for dim, count in enumerate(times):
        if count == 1:
            continue
        if count == 0:
            raise Refusal("a dim has no elements")
        if isinstance(count, Rows):
            groups[dim] = (*_rows(w, groups, count), *groups[dim])
        else:
            groups[dim] = (w.axes.fresh(count), *groups[dim])
    return Value(tuple(groups), x.node)


@rule(aten.repeat_interleave.self_int, law="repeat_interleave(x, k) = merge(expand(x, k)), the new axis minor")
def repeat_interleave(w: Workspace, x: Value, times: Size, dim: int | None = None, **_: Any) -> Value:
    """Each element several times: the new axis is the minor one."""
    if dim is None or isinstance(times, Rows) or times < 1:
        raise Refusal("repeat_interleave over all dims, or by the number of rows")
    at = x.dim(dim)
    added: Group = (w.axes.fresh(times),) if times > 1 else ()
    return Value((*x.groups[:at], (*x.groups[at], *added), *x.groups[at + 1 :]), x.node)


@rule(aten.flip.default, law="flip(x) = x[n - 1 - i]")
def flip(w: Workspace, x: Value, over: Sequence[int]) -> Value:
    """Places in reverse order."""
    for dim in over:
        at = x.dim(dim)
        if ROW in x.groups[at]:
            raise Refusal("the order of rows")
        x = dims.merge_dim(w, x, at)
        if x.groups[at]:
            (axis,) = x.groups[at]
            node = pick(w, x.node, (axis,), np.arange(axis.size)[::-1].astype(np.int64), (axis,))
            x = Value(x.groups, node)
    return x


# ------------------------------------------------------------------------------------------------------ constants


def filled(w: Workspace, shape: Sequence[Size], number: float | Rows, dtype: torch.dtype | None) -> Value:
    """A tensor of one number: it varies along nothing."""
    if isinstance(number, Rows):
        raise Refusal("the number of rows is computed with")
    groups: list[Group] = []
    for size in shape:
        if isinstance(size, Rows):
            rows = _rows(w, groups, Rows())
            groups.append(rows if size.times == 1 else (*rows, w.axes.fresh(size.times)))
        else:
            groups.append((w.axes.fresh(size),) if size != 1 else ())
    return Value(tuple(groups), leaf(Operand(w.program.number(number, dtype or torch.tensor(number).dtype), ())))


@rule(
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    law="arange(n) = a constant along its own dim, for n known when compiling",
)
def arange(w: Workspace, *bounds: Any, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Numbers known when compiling. `arange(R)` is not among them: it differs between candidates."""
    if any(isinstance(bound, Rows) for bound in bounds):
        raise Refusal("rows are numbered")
    target = (aten.arange.default, aten.arange.start, aten.arange.start_step)[len(bounds) - 1]
    numbers = torch.arange(*bounds, dtype=dtype, device="meta")
    shape = tuple(numbers.shape)
    return from_tensor(w, w.program.call(target, *bounds, shape=shape, out=numbers.dtype, dtype=dtype, **options))


@rule(aten.full.default, law="full([N, ...], v) = expand(v)")
def full(w: Workspace, shape: Sequence[Size], number: float, dtype: torch.dtype | None = None, **_: Any) -> Value:
    """`full([R, 1], v)` has no rows of its own."""
    return filled(w, shape, number, dtype)


@rule(aten.zeros.default, law="full([N, ...], v) = expand(v)")
def zeros(w: Workspace, shape: Sequence[Size], dtype: torch.dtype | None = None, **_: Any) -> Value:
    """`zeros([R, 1])`, with which many sums start."""
    return filled(w, shape, 0.0, dtype or torch.get_default_dtype())


@rule(aten.ones.default, law="full([N, ...], v) = expand(v)")
def ones(w: Workspace, shape: Sequence[Size], dtype: torch.dtype | None = None, **_: Any) -> Value:
    """`ones([R, 1])`."""
    return filled(w, shape, 1.0, dtype or torch.get_default_dtype())


@rule(aten.scalar_tensor.default, law="full([N, ...], v) = expand(v)")
def scalar_tensor(w: Workspace, number: float, dtype: torch.dtype | None = None, **_: Any) -> Value:
    """A number as a tensor without dims."""
    return filled(w, (), number, dtype or torch.get_default_dtype())


@rule(aten.full_like.default, law="full([N, ...], v) = expand(v)")
def full_like(w: Workspace, x: Value, number: float, dtype: torch.dtype | None = None, **_: Any) -> Value:
    """A constant in the shape of another tensor."""
    return Value(x.groups, filled(w, (), number, dtype or x.dtype).node)


@rule(aten.zeros_like.default, law="full([N, ...], v) = expand(v)")
def zeros_like(w: Workspace, x: Value, dtype: torch.dtype | None = None, **_: Any) -> Value:
    """Zeros in the shape of another tensor."""
    return full_like(w, x, 0, dtype)


@rule(aten.ones_like.default, law="full([N, ...], v) = expand(v)")
def ones_like(w: Workspace, x: Value, dtype: torch.dtype | None = None, **_: Any) -> Value:
    """Ones in the shape of another tensor."""
    return full_like(w, x, 1, dtype)


@rule(aten.new_zeros.default, law="full([N, ...], v) = expand(v)")
def new_zeros(w: Workspace, x: Value, shape: Sequence[Size], dtype: torch.dtype | None = None, **_: Any) -> Value:
    """Zeros of the type of another tensor."""
    return filled(w, shape, 0, dtype or x.dtype)


@rule(aten.new_ones.default, law="full([N, ...], v) = expand(v)")
def new_ones(w: Workspace, x: Value, shape: Sequence[Size], dtype: torch.dtype | None = None, **_: Any) -> Value:
    """Ones of the type of another tensor."""
    return filled(w, shape, 1, dtype or x.dtype)


@rule(aten.new_full.default, law="full([N, ...], v) = expand(v)")
def new_full(
    w: Workspace, x: Value, shape: Sequence[Size], number: float, dtype: torch.dtype | None = None, **_: Any
) -> Value:
    """A constant of the type of another tensor."""
    return filled(w, shape, number, dtype or x.dtype)
