"""Reading: an ONNX file as nodes, tensors and inputs, with nothing in it trusted.

A file may be truncated, name data outside of its folder, claim sizes that are not there, or call functions in functions
until they fill the memory. All of that is found before a tensor is made. External data are read where they lie, never
through the message, which ends at 2 GiB.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor

from rankopt.errors import CaptureError, FormatError
from rankopt.importing.operators import NEWEST, OLDEST, OPERATORS, Node, dtype_of

MESSAGE = 2**31
"""Bytes at which a protobuf message ends."""

NODES = 1_000_000
"""Nodes that a graph may have when its functions are written out."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An input or output as the file declares it. A size that is free is its name, or None."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """What a file holds."""

    source: str
    """What to call it in messages."""
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    """The weights and constants of the file by name."""
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]


def read(model: Path | onnx.ModelProto) -> Graph:
    """The graph in a file, or in a message.

    Raises FormatError where it is damaged, of a version that cannot be read, or refers to what is not beside it;
    CaptureError, with all of them, where there are operators that are not known.
    """
    source = str(model) if isinstance(model, Path) else "the ONNX model"
    message = _message(model) if isinstance(model, Path) else model
    folder = model.parent if isinstance(model, Path) else None
    _check_versions(message, source)
    message = _without_functions(message, source)
    _check_operators(message, source)
    _check_structure(message, source)
    return _graph(message, source, folder)


def _message(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if size >= MESSAGE:
            raise FormatError(
                f"{path} has {size:,} bytes, and a protobuf message ends at 2 GiB.\n"
                "  fix: save it with external data, onnx.save(model, path, save_as_external_data=True)"
            )
        message = onnx.ModelProto()
        message.ParseFromString(path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.\n  fix: check the path") from error
    except DecodeError as error:
        raise FormatError(f"{path} is no ONNX model, or is truncated.\n  fix: export or copy it again") from error
    if not message.graph.node or not message.opset_import:
        raise FormatError(f"{path} holds no graph, or is truncated.\n  fix: export or copy it again")
    return message


def _check_versions(message: onnx.ModelProto, source: str) -> None:
    version = _opset(message)
    if not OLDEST <= version <= NEWEST:
        raise FormatError(
            f"{source} is written in version {version} of ONNX's operators.\n"
            f"  expected: {OLDEST} to {NEWEST}\n"
            "  fix: onnx.version_converter.convert_version(model, 18)"
        )


def _opset(message: onnx.ModelProto) -> int:
    return max((item.version for item in message.opset_import if item.domain in ("", "ai.onnx")), default=0)


def _without_functions(message: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """The graph with its local functions written out. Raises FormatError where they would never end."""
    if not message.functions:
        return message
    from onnx.inliner import inline_local_functions

    bodies = {(function.domain, function.name): function for function in message.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(nodes: Any, above: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key not in bodies:
                total += 1
                continue
            if key in above:
                raise FormatError(f"{source}: the function {node.op_type} calls itself.\n  fix: export the model again")
            if key not in counts:
                counts[key] = count(bodies[key].node, above | {key})
            total += counts[key]
        return total

    if count(message.graph.node, frozenset()) > NODES:
        raise FormatError(
            f"{source} has more than {NODES:,} nodes when its functions are written out.\n  fix: export the model again"
        )
    return inline_local_functions(message)


def _check_operators(message: onnx.ModelProto, source: str) -> None:
    """Raises CaptureError with every operator that has no handler, and where it stands."""
    nodes = [_node(node, place, 0) for place, node in enumerate(message.graph.node, 1)]
    missing = [node for node in nodes if node.operator not in OPERATORS and node.operator != "Constant"]
    if not missing:
        return
    lines = []
    for name, times in sorted(Counter(node.operator for node in missing).items()):
        shown = [f"'{node.name or node.outputs[0]}'" for node in missing if node.operator == name][:3]
        more = f" and {times - len(shown)} more" if times > len(shown) else ""
        lines.append(f"    {name}: {', '.join(shown)}{more}")
    raise CaptureError(
        f"{source} has operators that cannot be read.\n  missing:\n" + "\n".join(lines) + "\n"
        "  fix: export the model with others (docs/export.md lists those that are read), or rewrite the original"
    )


def _check_structure(message: onnx.ModelProto, source: str) -> None:
    """Raises FormatError where the graph is malformed. What inputs, weights and outputs are is looked at elsewhere."""
    light = onnx.ModelProto(ir_version=max(message.ir_version, 8))
    light.opset_import.extend(message.opset_import)
    light.graph.name = message.graph.name or "graph"
    light.graph.node.extend(message.graph.node)
    leaves = {item.name: None for item in (*message.graph.input, *message.graph.initializer)}
    light.graph.input.extend(_named(name) for name in leaves)
    light.graph.output.extend(_named(item.name) for item in message.graph.output)
    try:
        onnx.checker.check_model(light)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0]
        raise FormatError(f"{source} is malformed: {first}\n  fix: export the model again") from error


def _named(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [])


# ------------------------------------------------------------------------------------------------------ the graph


def _graph(message: onnx.ModelProto, source: str, folder: Path | None) -> Graph:
    graph, opset = message.graph, _opset(message)
    if graph.sparse_initializer:
        raise FormatError(f"{source} has sparse weights.\n  fix: export the model with dense ones")
    tensors = {weight.name: _tensor(weight, source, folder) for weight in graph.initializer}
    nodes: list[Node] = []
    for place, item in enumerate(graph.node, 1):
        node = _node(item, place, opset, source, folder)
        if node.op == "Constant":
            tensors[node.outputs[0]] = _constant(node, source)
        else:
            nodes.append(node)
    inputs = tuple(_declared(value, source) for value in graph.input if value.name not in tensors)
    return Graph(source, tuple(nodes), tensors, inputs, tuple(value.name for value in graph.output))


def _node(item: Any, place: int, opset: int, source: str = "", folder: Path | None = None) -> Node:
    attributes = {a.name: _attribute(a, source, folder) for a in item.attribute} if opset else {}
    return Node(place, item.op_type, item.domain, item.name, tuple(item.input), tuple(item.output), attributes, opset)


def _attribute(attribute: Any, source: str, folder: Path | None) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return _tensor(value, source, folder) if isinstance(value, onnx.TensorProto) else value


def _constant(node: Node, source: str) -> Tensor:
    """What a Constant node holds, in whichever of its attributes."""
    if isinstance(value := node.attribute("value"), Tensor):
        return value
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        for attribute in (name, f"{name}s"):
            if attribute in node.attributes:
                return torch.tensor(node.attributes[attribute], dtype=dtype)
    raise FormatError(f"{source}: the constant {node} is no dense tensor of numbers.\n  fix: export the model again")


def _declared(value: Any, source: str) -> Declared:
    kind = value.type.WhichOneof("value")
    dtype = dtype_of(value.type.tensor_type.elem_type) if kind == "tensor_type" else None
    if dtype is None or not value.type.tensor_type.HasField("shape"):
        found = kind if dtype is None else "a tensor of unknown rank"
        raise FormatError(
            f"{source}: the input '{value.name}' is {found or 'of no type'}.\n"
            "  expected: a tensor of numbers or bools, whose first dim counts rows\n"
            "  fix: convert strings and sequences before the model, and export it with shapes"
        )
    sizes = [
        dim.dim_value if dim.WhichOneof("value") == "dim_value" else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]
    return Declared(value.name, dtype, tuple(sizes))


# ------------------------------------------------------------------------------------------------------ tensors


def _tensor(weight: onnx.TensorProto, source: str, folder: Path | None) -> Tensor:
    """A tensor of the file, in memory of its own."""
    dtype = dtype_of(weight.data_type)
    if dtype is None:
        kind = onnx.TensorProto.DataType.Name(weight.data_type)
        raise FormatError(f"{source}: '{weight.name}' is of type {kind}, which torch has not.\n  fix: convert it")
    shape = list(weight.dims)
    if weight.data_location == onnx.TensorProto.EXTERNAL:
        expected = math.prod(shape) * dtype.itemsize
        raw = _external(weight, source, folder, expected)
        return torch.from_numpy(raw).view(dtype).reshape(shape) if expected else torch.zeros(shape, dtype=dtype)
    try:
        if weight.HasField("raw_data") and weight.raw_data:
            return torch.frombuffer(bytearray(weight.raw_data), dtype=dtype).reshape(shape)
        values = np.array(numpy_helper.to_array(weight).astype(_numpy_of(dtype)))
        return torch.from_numpy(values).to(dtype).reshape(shape)
    except (ValueError, RuntimeError, TypeError) as error:
        raise FormatError(
            f"{source}: '{weight.name}' does not hold the elements of its shape {shape}.\n  fix: export the model again"
        ) from error


def _numpy_of(dtype: torch.dtype) -> Any:
    return np.float32 if dtype is torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype


def _external(weight: onnx.TensorProto, source: str, folder: Path | None, expected: int) -> Any:
    """The bytes of a tensor that lie in another file, which must be in the model's own folder."""
    facts = {entry.key: entry.value for entry in weight.external_data}
    where = facts.get("location", "")
    if folder is None:
        raise FormatError(
            f"{source}: '{weight.name}' lies in another file, '{where}'.\n"
            "  fix: give the path of the model, or onnx.load it with its external data"
        )
    place = (folder / where).resolve()
    if not where or not place.is_relative_to(folder.resolve()):
        raise FormatError(
            f"{source}: '{weight.name}' lies outside of the model's folder, in '{where}'.\n"
            "  expected: a file beside the model\n  fix: if you know who made it, save it again"
        )
    try:
        offset, length = int(facts.get("offset", 0)), int(facts.get("length", expected))
        if length != expected or offset < 0 or not place.is_file() or place.stat().st_size < offset + length:
            raise ValueError
        return np.fromfile(place, dtype=np.uint8, count=length, offset=offset)
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{source}: '{weight.name}' is not in '{where}'.\n"
            f"  expected: {expected:,} bytes from {facts.get('offset', 0)} on\n"
            f"  found: {f'{place.stat().st_size:,} bytes' if place.is_file() else 'no such file'}\n"
            "  fix: copy the model together with its data"
        ) from error
