"""Assignments to places of a tensor, as in-place code becomes once it is functional.

x[:, i] = y            cat(x, y) at constant places: what is context and what is target stays apart
x[mask] = number       where(mask, number, x)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rankopt.axes import Rows, Size
from rankopt.passes.concatenation import cat
from rankopt.passes.data_movement import expand, full_like, unsqueeze
from rankopt.passes.elementwise import apply, to_dtype
from rankopt.passes.gather import take
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Value
from rankopt.workspace import Workspace


@rule(aten.select_scatter.default, law="(x[i] = y) = cat(x, y)[j] for constant i, j")
def select_scatter(w: Workspace, x: Value, source: Value, dim: int, place: Size) -> Value:
    """`x.select(dim, place) = source`."""
    at = x.dim(dim)
    size = x.shape[at]
    if isinstance(size, Rows) or isinstance(place, Rows):
        raise Refusal("a row is assigned to")
    return _assigned(w, x, unsqueeze(w, source, at), at, np.array([place % size]))


@rule(aten.slice_scatter.default, law="(x[i:k] = y) = cat(x, y)[j] for constant i, k, j")
def slice_scatter(
    w: Workspace, x: Value, source: Value, dim: int = 0, start: Size | None = None, end: Size | None = None,
    step: int = 1,
) -> Value:  # fmt: skip
    """`x[start:end:step] = source`, along `dim`; all rows at once are no assignment to places."""
    at = x.dim(dim)
    size = x.shape[at]
    if isinstance(size, Rows):
        if source.shape[at] != size or start not in (None, 0) or step != 1:
            raise Refusal("rows are assigned to")
        return copy(w, x, source)
    if isinstance(start, Rows) or isinstance(end, Rows):
        raise Refusal("a slice as long as there are rows")
    return _assigned(w, x, source, at, np.arange(size)[slice(start, end, step)])


def _assigned(w: Workspace, x: Value, source: Value, at: int, places: np.ndarray[Any, Any]) -> Value:
    """`x` with `source` at constant places of dim `at`."""
    size = x.shape[at]
    assert isinstance(size, int)
    source = to_dtype(w, source, x.dtype)
    if len(places) == size:
        return source
    index = np.arange(size)
    index[places] = size + np.arange(len(places))
    return take(w, cat(w, [x, source], at), at, index)


@rule(aten.copy.default, law="(x[...] = y) = expand(y)")
def copy(w: Workspace, x: Value, source: Value, non_blocking: bool = False) -> Value:
    """`x[...] = source`."""
    source = to_dtype(w, source, x.dtype)
    return expand(w, source, x.shape)


@rule(aten.fill.Tensor, aten.fill.Scalar, law="(x[...] = v) = expand(v)")
def fill(w: Workspace, x: Value, number: Value | float) -> Value:
    """`x[...] = number`."""
    if isinstance(number, Value):
        return copy(w, x, number)
    return full_like(w, x, number)


@rule(aten.index_put.default, law="x[mask] = number is where(mask, number, x)")
def index_put(
    w: Workspace, x: Value, indices: Sequence[Value | None], source: Value, accumulate: bool = False
) -> Value:
    """A boolean index of some neighbouring dims, and one number."""
    masks = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(masks) != 1 or masks[0][1].dtype != torch.bool or accumulate:
        raise Refusal("an assignment by an index")
    if any(source.groups):
        raise Refusal("an assignment of as many numbers as there are places")
    before, mask = masks[0]
    after = x.ndim - before - mask.ndim
    mask = Value((*[()] * before, *mask.groups, *[()] * after), mask.node)
    number = Value((), to_dtype(w, source, x.dtype).node)
    return apply(w, aten.where.self, mask, number, x)
