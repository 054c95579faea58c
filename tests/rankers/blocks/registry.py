"""What a block is, and which there are.

A block is a function of its layers, its operands and its options. `@block` says which values it takes and between
which options to choose, the simplest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Kind = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Block:
    """A function of layers, operands and options; what operands it takes, and whether they fit each other."""

    run: Callable[..., Tensor]
    kinds: tuple[Kind, ...]
    fits: Callable[..., Any]
    options: dict[str, tuple[Any, ...]] = field(default_factory=dict)


BLOCKS: dict[str, Block] = {}


def block(*kinds: Kind, fits: Callable[..., Any] = lambda *_: True, **options: tuple[Any, ...]) -> Callable[..., Any]:
    """Registers a block under the name of its function."""

    def register(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        BLOCKS[run.__name__.rstrip("_")] = Block(run, kinds, fits, options)
        return run

    return register


def is_fields(x: Tensor) -> bool:
    """[R, F, D]: fields, or the steps of a history."""
    return x.is_floating_point() and x.ndim == 3


def is_vector(x: Tensor) -> bool:
    return x.is_floating_point() and x.ndim == 2


def is_float(x: Tensor) -> bool:
    return x.is_floating_point() and x.ndim in (2, 3)


def is_ids(x: Tensor) -> bool:
    return x.dtype == torch.int64


def is_mask(x: Tensor) -> bool:
    return x.dtype == torch.bool and x.ndim == 2


def is_scalar(x: Tensor) -> bool:
    return x.ndim == 0


def masks(x: Tensor, mask: Tensor, *_: Tensor) -> bool:
    return mask.shape == x.shape[:2]


def pairs(count: int) -> tuple[list[int], list[int]]:
    both = [(i, j) for i in range(count) for j in range(i + 1, count)] or [(0, 0)]
    return [i for i, _ in both], [j for _, j in both]
