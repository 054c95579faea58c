"""An ONNX graph as a module: it runs node by node, by the handlers in `operators`, on any number of rows.

    model = import_onnx(path)
    scores = model(user_id=u, item_id=i)["scores"]         # inputs and outputs by their names in the file

Weights are parameters under their names in the file, so that new ones can be loaded in their place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.fx import traceback

import rankopt.importing.elementwise
import rankopt.importing.lookups
import rankopt.importing.movement
import rankopt.importing.normalising
import rankopt.importing.products
import rankopt.importing.reductions  # noqa: F401  they register their handlers
from rankopt.errors import CaptureError
from rankopt.importing.constants import Known, UnknownValueError, Value, tensor
from rankopt.importing.examples import example_rows
from rankopt.importing.operators import Node, apply
from rankopt.importing.original import Original
from rankopt.importing.reading import Graph, read
from rankopt.tensors import get_tensor, put_tensor

LOOKED_INTO = 1 << 16
"""Elements up to which handlers may look into a constant: indices, axes, shapes, numbers."""

FOLDED = frozenset(
    {
        *("Add", "Cast", "Concat", "Div", "Equal", "Gather", "Identity", "Mul", "Not", "ReduceProd"),
        *("Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
    }
)
"""Operators on constant integers that are computed at once: they make shapes, axes and indices, and are never large."""


class OnnxModel(nn.Module):
    """The model in an ONNX graph. Called with tensors by the names of its inputs; returns a dict of its outputs."""

    def __init__(self, graph: Graph, original: Original) -> None:
        super().__init__()
        self.training = False
        self.graph = graph
        self.original = original
        self.known: dict[str, np.ndarray[Any, Any]] = {}
        self._places = _places(graph)
        for name, place in self._places.items():
            self._register(name, place, graph.tensors[name])
        self.numbers = frozenset(self._places[name] for name in self.known if not graph.tensors[name].dim())
        """Weights without dims, which become numbers of the program: it holds for these values alone."""
        self._nodes = self._fold()

    def _register(self, name: str, place: str, weight: Tensor) -> None:
        put_tensor(self, place, nn.Parameter(weight) if weight.is_floating_point() else weight)
        if weight.numel() <= LOOKED_INTO and weight.dtype is not torch.bfloat16:
            self.known[name] = weight.numpy()

    def _fold(self) -> tuple[Node, ...]:
        """Computes what follows from constant integers; returns the nodes that are left."""
        left: list[Node] = []
        for node in self.graph.nodes:
            arrays = [self.known.get(name) for name in node.inputs if name]
            whole = node.op in FOLDED and arrays and all(a is not None and a.dtype.kind in "iub" for a in arrays)
            if not whole or node.attribute("to") in (1, 10, 11, 16):
                left.append(node)
                continue
            results = self._run(node, {name: self._constant(name) for name in node.inputs if name})
            for name, result in zip(node.outputs, results, strict=False):
                value = tensor(result).clone()
                self._places[name] = place = f"_folded_{len(self._places)}"
                put_tensor(self, place, value)
                self.known[name] = value.numpy()
        return tuple(left)

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        """The outputs by name."""
        env: dict[str, Value] = dict(_flat(inputs))
        with traceback.preserve_node_meta():
            for node in self._nodes:
                traceback.set_stack_trace([_frame(self.graph.source, node)])
                for name in node.inputs:
                    if name and name not in env:
                        env[name] = self._constant(name)
                env.update(zip(node.outputs, self._run(node, env), strict=False))
        return {name: tensor(env[name] if name in env else self._constant(name)) for name in self.graph.outputs}

    def example_rows(self) -> dict[str, Tensor]:
        """Rows to call it with. Raises InputError where the file does not say enough about an input."""
        return example_rows(self.graph)

    def _constant(self, name: str) -> Value:
        weight = get_tensor(self, self._places[name])
        return Known(weight, self.known[name], name) if name in self.known else weight

    def _run(self, node: Node, env: Mapping[str, Value]) -> tuple[Value, ...]:
        try:
            return apply(node, [env[name] if name else None for name in node.inputs])
        except UnknownValueError as error:
            raise self._refusal(node, f"it needs {error}") from error
        except Exception as error:  # torch raises whatever its layers raise
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise self._refusal(node, first[:300]) from error

    def _refusal(self, node: Node, reason: str) -> CaptureError:
        return CaptureError(
            f"node {node} of {self.graph.source} cannot be read: {reason}.\n"
            f"  at: node {node.place}, which reads {', '.join(name for name in node.inputs if name)}\n"
            "  fix: export the model with its first dim free, and without shapes that depend on the data"
        )


def import_onnx(model: str | os.PathLike[str] | onnx.ModelProto) -> OnnxModel:
    """The model in an ONNX file, or in a message.

    Raises FormatError where it is damaged or of a version that cannot be read, CaptureError with all of its operators
    that are not known.
    """
    given = model if isinstance(model, onnx.ModelProto) else Path(model)
    graph = read(given)
    return OnnxModel(graph, Original(given, graph.source, graph.outputs))


def _flat(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Inputs by name: whoever nests what has dots in its name means the same."""
    flat: dict[str, Tensor] = {}
    for name, value in inputs.items():
        inner = _flat(value) if isinstance(value, Mapping) else None
        flat.update({name: value} if inner is None else {f"{name}.{key}": leaf for key, leaf in inner.items()})
    return flat


def _frame(source: str, node: Node) -> str:
    """Where a node stands, in the form in which torch records lines of Python."""
    return f'  File "{source}", line {node.place}, in {node.op}\n    {node.operator} {node.name or node.outputs[0]}\n'


def _places(graph: Graph) -> dict[str, str]:
    """Where each tensor of the file is kept: under its own name, unless the dots in it lead nowhere."""
    names = set(graph.tensors)
    prefixes = {name[:i] for name in names for i, char in enumerate(name) if char == "."}
    places: dict[str, str] = {}
    for name in graph.tensors:
        plain = (
            all(name.split("."))
            and name not in prefixes
            and not any(name.startswith(f"{other}.") for other in names & prefixes)
        )
        place = name if plain else name.replace(".", "_") or "_"
        while place in places.values() or (place != name and place in names):
            place += "_"
        places[name] = place
    return places
