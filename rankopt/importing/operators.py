"""The table of operators: what each ONNX operator is in torch.

    @operator("Reshape", known=[1])
    def reshape(node: Node, x: Tensor, shape: Value) -> Tensor: ...

A handler gets its inputs as tensors; those at the places `known` as they are, to be looked into. An input that is left
out is None. `sizes_operator` is the same operator on lists of sizes, where all inputs are such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch

from rankopt.importing.constants import Sizes, Value, as_sizes, listable, tensor

OLDEST, NEWEST = 11, 23
"""Versions of the operator set that the handlers were written for."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of an ONNX graph: its place, from 1, its operator, and the names of what it reads and makes."""

    place: int
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    @property
    def operator(self) -> str:
        """The operator with its domain, where that is not ONNX's own."""
        return self.op if self.domain in ("", "ai.onnx") else f"{self.domain}.{self.op}"

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or what the operator takes where it is left out."""
        return self.attributes.get(name, default)

    def __str__(self) -> str:
        return f"'{self.name or self.outputs[0]}' ({self.operator})"


Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Operator:
    """A handler, and which of its inputs it looks into."""

    handler: Handler
    known: frozenset[int]


OPERATORS: dict[str, Operator] = {}
SIZES_OPERATORS: dict[str, Handler] = {}


def operator(*names: str, known: Sequence[int] = ()) -> Callable[[Handler], Handler]:
    """Registers a handler for operators; `known` are the places of inputs that it looks into."""

    def register(handler: Handler) -> Handler:
        for name in names:
            assert name not in OPERATORS, f"{name} has two handlers"
            OPERATORS[name] = Operator(handler, frozenset(known))
        return handler

    return register


def sizes_operator(*names: str) -> Callable[[Handler], Handler]:
    """Registers a handler on lists of sizes."""

    def register(handler: Handler) -> Handler:
        SIZES_OPERATORS.update(dict.fromkeys(names, handler))
        return handler

    return register


def apply(node: Node, inputs: Sequence[Value | None]) -> tuple[Value, ...]:
    """The results of a node."""
    if node.op in SIZES_OPERATORS and listable(inputs):
        found = SIZES_OPERATORS[node.op](node, *(None if x is None else as_sizes(x) for x in inputs))
        if found is not None:
            return found if isinstance(found, tuple) else (found,)
    known = OPERATORS[node.op]
    given = [x if x is None or i in known.known else tensor(x) for i, x in enumerate(inputs)]
    results = known.handler(node, *given)
    return tuple(results) if isinstance(results, tuple | list) else (results,)


_DTYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def dtype_of(element: int) -> torch.dtype | None:
    """torch's element type for ONNX's; None where there is none."""
    return _DTYPES.get(element)


def is_sizes(value: Any) -> bool:
    """Whether a result is a list of sizes."""
    return isinstance(value, Sizes)
