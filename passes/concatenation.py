"""Concatenation: fields side by side, and taking them apart again.

f(cat(c, t)) = cat(f(c), f(t))        what is context and what is target stays apart, whatever the order of fields
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rankopt import dims
from rankopt.axes import ROW, Group, Rows, Size
from rankopt.nesting import coalesce
from rankopt.passes.data_movement import full_like, unsqueeze
from rankopt.passes.elementwise import to_dtype
from rankopt.passes.gather import take
from rankopt.program import aten
from rankopt.rolling import roll
from rankopt.rules import Refusal, rule
from rankopt.structure import concatenate
from rankopt.values import Node, Part, Value, freshen
from rankopt.workspace import Workspace


@rule(
    aten.cat.default,
    aten.concat.default,
    aten.concatenate.default,
    law="cat(expand(c), t): two parts at their places, c without rows",
)
def cat(w: Workspace, xs: Sequence[Value], dim: int = 0) -> Value:
    """Parts with explicit positions. Minor axes that all operands share, rows among them, stay outside."""
    xs = [x for x in xs if not (x.ndim == 1 and x.shape == (0,))]
    at = xs[0].dim(dim)
    xs = _one_dtype(w, xs)
    tail = _common_tail(xs, at)
    split = [_split_tail(x, at, tail) for x in xs]
    split = [dims.merge_dim(w, x, at) for x in split]
    if any(ROW in x.groups[at] for x in split):
        raise Refusal("rows are concatenated")
    nodes, own, groups = _agree(w, split, at)
    parts: list[Part] = []
    start = 0
    for node, group in zip(nodes, own, strict=True):
        size = group[0].size if group else 1
        parts.append(Part(np.arange(start, start + size, dtype=np.int64), group, node))
        start += size
    minor = tuple(a for group in groups[at + 1 : at + 1 + tail] for a in group)
    if start == 1:
        only = next(part for part in parts if len(part.positions))
        return Value((*groups[:at], minor, *groups[at + 1 + tail :]), only.node)
    axis = w.axes.fresh(start)
    node = coalesce(w, roll(w, concatenate(w, axis, parts)))
    return Value((*groups[:at], (axis, *minor), *groups[at + 1 + tail :]), node)


def _one_dtype(w: Workspace, xs: Sequence[Value]) -> list[Value]:
    dtype = xs[0].dtype
    for x in xs[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    return [to_dtype(w, x, dtype) for x in xs]


def _common_tail(xs: Sequence[Value], at: int) -> int:
    """How many minor axes of dim `at` all operands have in common, at least one axis being left to concatenate."""
    groups = [x.groups[at] for x in xs]
    tail = 0
    while all(len(group) > tail for group in groups):
        minor = [group[-1 - tail] for group in groups]
        rows = [axis is ROW for axis in minor]
        longest = all(len(group) > tail + 1 for group in groups)
        if not (all(rows) or (longest and not any(rows) and len({axis.size for axis in minor}) == 1)):
            break
        tail += 1
    return tail


def _split_tail(x: Value, at: int, tail: int) -> Value:
    group = x.groups[at]
    cut = len(group) - tail
    minor = tuple((axis,) for axis in group[cut:])
    return Value((*x.groups[:at], group[:cut], *minor, *x.groups[at + 1 :]), x.node)


def _agree(w: Workspace, xs: Sequence[Value], at: int) -> tuple[list[Node], list[Group], list[Group]]:
    """Nodes with common axes in all dims but `at`; the group that each keeps there; the common groups."""
    values = [xs[0], *(freshen(w, x) for x in xs[1:])]
    outer = [Value((*x.groups[:at], (), *x.groups[at + 1 :]), x.node) for x in values]
    work, common = dims.agree(w, outer)
    groups = list(common)
    nodes = [dims.renamed(x, groups) for x in work]
    return nodes, [x.groups[at] for x in values], groups


@rule(aten.stack.default, law="stack(x, y) = cat(unsqueeze(x), unsqueeze(y))")
def stack(w: Workspace, xs: Sequence[Value], dim: int = 0) -> Value:
    """A new dim along which the operands lie."""
    at = dim % (xs[0].ndim + 1)
    return cat(w, [unsqueeze(w, x, at) for x in xs], at)


@rule(aten.constant_pad_nd.default, law="pad(x, v) = cat(v, x, v)")
def constant_pad(w: Workspace, x: Value, sizes: Sequence[Size], number: float | None = 0) -> Value:
    """`sizes` holds how many places come before and after each dim, the last dim first; below zero they are cut off."""
    for i in range(0, len(sizes), 2):
        at = x.ndim - 1 - i // 2
        before, after = sizes[i], sizes[i + 1]
        if before == after == 0:
            continue
        whole = x.shape[at]
        if isinstance(before, Rows) or isinstance(after, Rows) or isinstance(whole, Rows):
            raise Refusal("rows are padded")
        x = take(w, x, at, np.arange(whole)[max(-before, 0) : whole + min(after, 0)])
        blocks = [_block(w, x, at, count, number or 0) for count in (before, after)]
        x = cat(w, [*blocks[0], x, *blocks[1]], at)
    return x


def _block(w: Workspace, x: Value, at: int, count: int, number: float) -> list[Value]:
    """Places of a constant, `count` of them along dim `at` of `x`; none, if it is not positive."""
    if count <= 0:
        return []
    axes: Group = (w.axes.fresh(count),) if count > 1 else ()
    return [Value((*x.groups[:at], axes, *x.groups[at + 1 :]), full_like(w, x, number).node)]


@rule(aten.pad.default, law="pad(x, v) = cat(v, x, v)")
def pad(w: Workspace, x: Value, sizes: Sequence[Size], mode: str = "constant", number: float | None = None) -> Value:
    """`pad` in its other modes repeats places of x."""
    if mode != "constant":
        raise Refusal("padding by places of the tensor")
    return constant_pad(w, x, sizes, number)


# ------------------------------------------------------------------------------------------------------ split


@rule(aten.split.sizes, aten.split_with_sizes.default, law="split(x) = x[0:n], x[n:m], ...")
def split_with_sizes(w: Workspace, x: Value, sizes: Sequence[Size], dim: int = 0) -> tuple[Value, ...]:
    """Ranges of the given sizes."""
    at = x.dim(dim)
    if isinstance(x.shape[at], Rows):
        return _split_rows(w, x, sizes, at)
    ends = np.cumsum([size for size in sizes if isinstance(size, int)])
    return tuple(take(w, x, at, np.arange(end - size, end)) for size, end in zip(sizes, ends, strict=True))


@rule(aten.split.Tensor, law="split(x) = x[0:n], x[n:m], ...")
def split(w: Workspace, x: Value, size: Size, dim: int = 0) -> tuple[Value, ...]:
    """Ranges of one size; the last may be shorter."""
    whole = x.shape[x.dim(dim)]
    if isinstance(whole, Rows):
        if not isinstance(size, Rows) or whole.times % size.times:
            raise Refusal("rows are cut apart")
        return _split_rows(w, x, [size] * (whole.times // size.times), x.dim(dim))
    if isinstance(size, Rows):
        raise Refusal("pieces as long as there are rows")
    return split_with_sizes(w, x, [min(size, whole - start) for start in range(0, whole, size)], dim)


@rule(aten.chunk.default, law="split(x) = x[0:n], x[n:m], ...")
def chunk(w: Workspace, x: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    """A number of ranges of equal size, the last possibly shorter."""
    whole = x.shape[x.dim(dim)]
    if isinstance(whole, Rows):
        if whole.times % chunks:
            raise Refusal("rows are cut apart")
        return split(w, x, Rows(whole.times // chunks), dim)
    return split(w, x, -(-whole // chunks), dim)


@rule(aten.unbind.int, law="unbind(x) = x[0], x[1], ...")
def unbind(w: Workspace, x: Value, dim: int = 0) -> tuple[Value, ...]:
    """Every place of one dim."""
    at = x.dim(dim)
    size = x.shape[at]
    if isinstance(size, Rows):
        raise Refusal("rows are taken apart")
    return tuple(take(w, x, at, np.array([place]), drop=True) for place in range(size))


def _split_rows(w: Workspace, x: Value, sizes: Sequence[Size], at: int) -> tuple[Value, ...]:
    """`[k * R]` in pieces of multiples of R, where the rows are the minor axis (heads split on dim 0)."""
    group = x.groups[at]
    counts = [size.times for size in sizes if isinstance(size, Rows)]
    if group[-1] is not ROW or len(counts) != len(sizes):
        raise Refusal("rows are cut apart")
    if len(counts) == 1:
        return (x,)
    apart = Value((*x.groups[:at], group[:-1], (ROW,), *x.groups[at + 1 :]), x.node)
    results: list[Value] = []
    for count, end in zip(counts, np.cumsum(counts), strict=True):
        piece = take(w, apart, at, np.arange(end - count, end))
        results.append(Value((*piece.groups[:at], (*piece.groups[at], ROW), *piece.groups[at + 2 :]), piece.node))
    return tuple(results)
