"""Operators that pick elements by index."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rankopt.importing.constants import Known, Sizes, Value, integer, integers, tensor
from rankopt.importing.operators import Node, operator


@operator("Gather", known=[1])
def gather(node: Node, x: Tensor, indices: Value) -> Tensor:
    """Whole places of one axis: constant ones, or the rows of a table that an input names.

    A negative index of a table that is not constant is refused when the model runs, as torch refuses it: whoever means
    the last row should say so.
    """
    axis = node.attribute("axis", 0) % x.dim()
    if not isinstance(indices, Tensor):
        return _constant_places(x, axis, indices)
    if axis or not x.shape[0]:
        picked = x.index_select(axis, _from_the_start(indices, x.shape[axis]).reshape(-1))
        return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    width = x.shape[1:]
    rows = F.embedding(indices, x if x.dim() == 2 else x.reshape(x.shape[0], -1))
    return rows if x.dim() == 2 else rows.reshape(*indices.shape, *width)


def _constant_places(x: Tensor, axis: int, indices: Known | Sizes) -> Tensor:
    places = np.array(integers(indices), dtype=np.int64)
    size = x.shape[axis]
    if isinstance(size, int):
        places = places % size
    if isinstance(indices, Sizes) or indices.array.ndim < 2:
        scalar = indices.is_scalar if isinstance(indices, Sizes) else indices.array.ndim == 0
        if scalar:
            return x.select(axis, int(places[0]))
        return x.index_select(axis, torch.from_numpy(places))
    picked = x.index_select(axis, torch.from_numpy(places))
    return picked.reshape(*x.shape[:axis], *indices.array.shape, *x.shape[axis + 1 :])


def _from_the_start(indices: Tensor, size: Any) -> Tensor:
    """Indices of which the negative ones count from the end."""
    return torch.where(indices < 0, indices + size, indices)


@operator("GatherElements")
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """An element per place of the index."""
    axis = node.attribute("axis", 0)
    return torch.gather(x, axis, _from_the_start(indices, x.shape[axis]).long())


@operator("GatherND")
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """The last dim of the index names a place in several dims, behind `batch_dims` that both share."""
    batch = node.attribute("batch_dims", 0)
    shared = [
        torch.arange(x.shape[dim]).reshape([-1 if i == dim else 1 for i in range(indices.dim() - 1)])
        for dim in range(batch)
    ]
    return x[(*shared, *indices.unbind(-1))]


@operator("ScatterND")
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy in which some elements are replaced, or added to."""
    reduction = node.attribute("reduction", b"none").decode()
    if reduction not in ("none", "add"):
        raise ValueError(f"reduction '{reduction}'")
    return torch.index_put(x, indices.unbind(-1), updates, accumulate=reduction == "add")


@operator("OneHot", known=[1])
def one_hot(node: Node, indices: Tensor, depth: Value, values: Tensor) -> Tensor:
    """One at the index, which may count from the end; nowhere, where that is out of range."""
    count = int(integer(depth))
    axis = node.attribute("axis", -1)
    ndim = indices.dim() + 1
    places = torch.arange(count).reshape([count if i == axis % ndim else 1 for i in range(ndim)])
    spread = indices.unsqueeze(axis)
    hit = (spread == places) | (spread == places - count)
    return torch.where(hit, values[1], values[0])


@operator("TopK", known=[1])
def top_k(node: Node, x: Tensor, k: Value) -> tuple[Tensor, Tensor]:
    """The largest or smallest, and where they stand."""
    found = torch.topk(
        x, integer(k), node.attribute("axis", -1), bool(node.attribute("largest", 1)), bool(node.attribute("sorted", 1))
    )
    return found.values, found.indices


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node, x: Tensor) -> Tensor:
    """Where the largest or the smallest stands: the first of them, or the last."""
    axis = node.attribute("axis", 0)
    last = bool(node.attribute("select_last_index", 0))
    values = x.flip(axis) if last else x
    # torch leaves open which of equals it names; `max` with a dim does not
    found = (values.max(axis, True) if node.op == "ArgMax" else values.min(axis, True)).indices
    found = x.shape[axis] - 1 - found if last else found
    return found if node.attribute("keepdims", 1) else found.squeeze(axis)


@operator("NonZero", "Compress", "Unique")
def unknown_size(node: Node, *_: Tensor) -> Tensor:
    """How much they return is known only once the data are."""
    raise ValueError("how much it returns depends on the data")


def table_rows(x: Value) -> int | None:
    """The number of rows of a table; None for anything else."""
    rows = tensor(x).shape[0] if tensor(x).dim() else None
    return rows if isinstance(rows, int) else None
