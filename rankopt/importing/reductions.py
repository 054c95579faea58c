"""Operators that reduce dims, or run along one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rankopt.importing.constants import Value, integer
from rankopt.importing.movement import axes_of
from rankopt.importing.operators import Node, operator

_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceSum": lambda x, dims, keep: x.sum(dims, keep),
    "ReduceMean": lambda x, dims, keep: x.mean(dims, keep),
    "ReduceMax": lambda x, dims, keep: x.amax(dims, keep),
    "ReduceMin": lambda x, dims, keep: x.amin(dims, keep),
    "ReduceProd": lambda x, dims, keep: _product(x, dims, keep),
    "ReduceL1": lambda x, dims, keep: x.abs().sum(dims, keep),
    "ReduceL2": lambda x, dims, keep: (x * x).sum(dims, keep).sqrt(),
    "ReduceSumSquare": lambda x, dims, keep: (x * x).sum(dims, keep),
    "ReduceLogSum": lambda x, dims, keep: x.sum(dims, keep).log(),
    "ReduceLogSumExp": lambda x, dims, keep: torch.logsumexp(x, dims, keep),
}


@operator(*_REDUCTIONS, known=[1])
def reduction(node: Node, x: Tensor, axes: Value | None = None) -> Tensor:
    """Over the dims named, or over all."""
    dims = axes_of(node, axes)
    if not dims and node.attribute("noop_with_empty_axes", 0):
        return x
    return _REDUCTIONS[node.op](x, dims or list(range(x.dim())), bool(node.attribute("keepdims", 1)))


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((dim % x.dim() for dim in dims), reverse=True):
        x = x.prod(dim, keep)
    return x


@operator("CumSum", known=[1])
def cumulative_sum(node: Node, x: Tensor, axis: Value) -> Tensor:
    """Sums of what stands before, with or without the place itself, from either end."""
    dim = integer(axis)
    reverse, exclusive = node.attribute("reverse", 0), node.attribute("exclusive", 0)
    values = x.flip(dim) if reverse else x
    sums = values.cumsum(dim)
    sums = sums - values if exclusive else sums
    return sums.flip(dim) if reverse else sums


@operator("Softmax", "LogSoftmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    """Along one dim; before version 13 along all from `axis` on."""
    compute: Callable[..., Any] = torch.softmax if node.op == "Softmax" else torch.log_softmax
    if node.opset >= 13:
        return compute(x, node.attribute("axis", -1))  # type: ignore[no-any-return]
    axis = node.attribute("axis", 1) % x.dim()
    if axis == x.dim() - 1:
        return compute(x, axis)  # type: ignore[no-any-return]
    return compute(x.flatten(axis), axis).reshape(x.shape)  # type: ignore[no-any-return]
