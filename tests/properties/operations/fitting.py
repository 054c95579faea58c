"""What operations share: which values fit, and how large they may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from properties.choices import Choices
from properties.recorder import Handle, Recorder

from rankopt.axes import Rows, Size

Operation = Callable[[Recorder, Choices, Sequence[Handle]], Handle | None]
DOUBLE = torch.float64
LONG = torch.int64
LARGEST = 400
"""Elements per row that a value may have."""


def is_float(x: Handle) -> bool:
    return x.dtype.is_floating_point


def alike(x: Handle) -> Callable[[Handle], bool]:
    """Whether a value has the type of x: products do not promote."""
    return lambda y: y.dtype == x.dtype


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


def bounded(x: Handle) -> bool:
    return not x.tensors[0].numel() or float(x.tensors[0].abs().max()) < 1e3


def apart(x: Handle) -> bool:
    """Whether no two elements share memory.

    torch writes into windows that overlap as if they did not, and its attention reads them wrongly: what such a program
    computes is no truth to compare with.
    """
    if 0 in x.tensors[0].stride():
        return True  # a repetition, which torch copies first
    sizes, strides = x.tensors[0].shape, x.tensors[0].stride()
    reach = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True) if size)
    places = torch.arange(max(reach, 1)).as_strided(sizes, strides)
    return places.unique().numel() == places.numel()


def broadcasts(x: Sequence[Size], y: Sequence[Size]) -> bool:
    """Whether two shapes broadcast, to something that is not too large."""
    ndim = max(len(x), len(y))
    pairs = list(zip([1] * (ndim - len(x)) + list(x), [1] * (ndim - len(y)) + list(y), strict=True))
    return all(a == b or 1 in (a, b) for a, b in pairs) and within([b if a == 1 else a for a, b in pairs])
