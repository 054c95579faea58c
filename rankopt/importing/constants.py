"""What is known of a value while an ONNX graph is read, beside the tensor that it is.

    Shape -> Gather -> Mul -> Concat -> Reshape        sizes, of which one may be the number of rows: `Sizes`
    axes, indices, exponents                           numbers of the file: `Known`

Handlers ask for what they need: `tensor(x)`, `integers(x)`, `number(x)`. What an operator needs to know, but depends on
the data, is no ranker that holds for every number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Size = Any
"""An int, or torch's symbol for one (`torch.SymInt`)."""


class UnknownValueError(Exception):
    """An operator needs a number that is known only once the data are."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Integers that were computed from shapes: a vector, or a single one."""

    items: tuple[Size, ...]
    is_scalar: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor of the file, small enough to be looked into; `name` is where it came from."""

    tensor: Tensor
    array: np.ndarray[Any, Any]
    name: str


Value = Tensor | Sizes | Known


def tensor(value: Value) -> Tensor:
    """The value as a tensor."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Known):
        return value.tensor
    if all(isinstance(item, int) for item in value.items):
        return torch.tensor(value.items[0] if value.is_scalar else value.items)
    parts = [torch.scalar_tensor(item, dtype=torch.int64) for item in value.items]
    return parts[0] if value.is_scalar else torch.stack(parts)


def integers(value: Value) -> list[Size]:
    """The integers in a value. Raises UnknownValueError where they depend on the data."""
    if isinstance(value, Sizes):
        return list(value.items)
    if isinstance(value, Known) and value.array.dtype.kind in "iub":
        return [int(item) for item in value.array.reshape(-1)]
    raise UnknownValueError("integers that depend on the data")


def integer(value: Value) -> Size:
    """The one integer in a value. Raises UnknownValueError where it depends on the data."""
    items = integers(value)
    if len(items) != 1:
        raise UnknownValueError(f"one integer, found {len(items)}")
    return items[0]


def number(value: Value) -> float | None:
    """The number in a value of the file that has no dims; None for any other value."""
    if isinstance(value, Known) and value.array.shape == () and value.array.dtype.kind in "fiu":
        return value.array.item()  # type: ignore[no-any-return]
    return None


def operand(value: Value) -> Tensor | float:
    """What arithmetic reads: a number of the file as that number, anything else as a tensor."""
    found = number(value)
    return tensor(value) if found is None else found


def listable(values: Sequence[Value | None]) -> bool:
    """Whether values are sizes, or constants that sizes may be computed with."""
    given = [value for value in values if value is not None]
    if not any(isinstance(value, Sizes) for value in given):
        return False
    return all(
        isinstance(value, Sizes)
        or (isinstance(value, Known) and value.array.ndim <= 1 and value.array.dtype.kind in "iub")
        for value in given
    )


def as_sizes(value: Value) -> Sizes:
    """Sizes, or a constant, as sizes."""
    if isinstance(value, Sizes):
        return value
    assert isinstance(value, Known)  # `listable` has seen to that
    items = bool if value.array.dtype.kind == "b" else int
    return Sizes(tuple(items(item) for item in value.array.reshape(-1)), value.array.ndim == 0)
