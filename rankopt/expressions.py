"""Expressions: the nodes of the program that is being written, and how they are walked.

What makes them, each once, is `rankopt.program`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch

from rankopt.axes import Shape


class Stage(IntEnum):
    """When a value can be computed. The stage of a result is the maximum over its operands."""

    WEIGHT = 0
    """From parameters only: once per model version."""
    CONTEXT = 1
    """From context inputs: once per request."""
    CANDIDATE = 2
    """From target inputs, or from their number: once per candidate."""


class Leaf(IntEnum):
    """What an expression without operands stands for."""

    INPUT = 0
    WEIGHT = 1
    CONSTANT = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an expression comes from: the node of the captured graph, and the rule that was at work."""

    node: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """One call of the emitted program. Compared by identity, ordered by `serial`.

    `shape` is None for a call that returns several tensors, and for a scalar (a size).
    """

    serial: int
    target: Callable[..., Any] | Leaf
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: Shape | None
    dtype: torch.dtype
    stage: Stage
    inputs: frozenset[str]
    origin: Origin

    def __repr__(self) -> str:
        return f"%{self.serial}:{self.shape}"

    @property
    def dims(self) -> Shape:
        """The shape, of an expression that is one tensor."""
        if self.shape is None:
            raise TypeError(f"{self.target} does not return one tensor")
        return self.shape


def operands(value: Any) -> Iterator[Expr]:
    """All expressions in an argument, however nested."""
    if isinstance(value, Expr):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from operands(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from operands(item)


def replaced(value: Any, by: Mapping[int, Expr]) -> Any:
    """An argument, however nested, with other expressions in it, given by the serials of its own."""
    if isinstance(value, Expr):
        return by[value.serial]
    if isinstance(value, tuple | list):
        return type(value)(replaced(item, by) for item in value)
    if isinstance(value, dict):
        return {name: replaced(item, by) for name, item in value.items()}
    return value


def reachable(outputs: Iterable[Expr]) -> list[Expr]:
    """The expressions that `outputs` need, in the order in which they were built."""
    seen: dict[int, Expr] = {}
    stack = list(outputs)
    while stack:
        expr = stack.pop()
        if expr.serial in seen:
            continue
        seen[expr.serial] = expr
        stack.extend(operands((expr.args, expr.kwargs)))
    return [seen[serial] for serial in sorted(seen)]
