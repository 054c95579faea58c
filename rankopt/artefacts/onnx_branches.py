"""One request in a file for many: an ONNX model that runs the graph of one request where there is one.

    requests == 1 ?  [graph of one request]  :  [graph of many requests]

The graph for many has a few more calls, and fewer that a runtime fuses; a server that has a single request in hand
should not pay for them. Both branches read the same weights, which the file holds once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankopt.artefacts.parts import Part, Port

PREFIX = "one."
"""Of the names in the graph of one request, which the graph for many may have, too. Inputs have no dots in theirs."""


def add_single(model: Any, single: Any, many_part: Part, single_part: Part) -> None:
    """Makes both graphs branches of `model`, in place. Nothing changes where no input counts requests.

    Args:
        model: an onnx_ir model for many requests, with inputs and outputs like `many_part`'s.
        single: that of one request, `single_part`. What it holds is moved.
        many_part: says which inputs count requests.
        single_part: the same inputs for one request.
    """
    import onnx_ir as ir

    counted = next((port.name for port in many_part.inputs if port.leading[:1] == ("B",)), None)
    if counted is None:
        return
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    weights = dict(graph.initializers)
    outputs, nodes = _emptied(graph)
    one = _constant(graph, f"{PREFIX}request", [1])
    _share_weights(graph, single.graph, weights)
    then_branch = _single_branch(graph, single.graph, inputs, outputs, _differing(many_part, single_part))
    names = [output.name for output in outputs]
    for output in outputs:
        output.name = f"many.{output.name}"
    else_branch = ir.Graph([], outputs, nodes=nodes, name="many_requests")
    size = ir.Node("", "Shape", [inputs[counted]], [ir.AttrInt64("start", 0), ir.AttrInt64("end", 1)])
    is_one = ir.Node("", "Equal", [size.outputs[0], one])
    branches = [ir.AttrGraph("then_branch", then_branch), ir.AttrGraph("else_branch", else_branch)]
    choice = ir.Node("", "If", [is_one.outputs[0]], branches, num_outputs=len(outputs))
    for result, name, output in zip(choice.outputs, names, outputs, strict=True):
        result.name, result.type, result.shape = name, output.type, output.shape
    size.outputs[0].name, is_one.outputs[0].name = f"{PREFIX}requests", f"{PREFIX}is_one"
    graph.extend([size, is_one, choice])
    graph.outputs.extend(choice.outputs)


def _emptied(graph: Any) -> tuple[list[Any], list[Any]]:
    """The outputs and the nodes of a graph, which are taken out of it."""
    outputs, nodes = list(graph.outputs), list(graph)
    graph.outputs.clear()
    graph.remove(nodes)
    return outputs, nodes


def _constant(graph: Any, name: str, numbers: list[int]) -> Any:
    import onnx_ir as ir

    tensor = ir.tensor(numbers, dtype=ir.DataType.INT64)
    value = ir.Value(name=name, shape=ir.Shape([len(numbers)]), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.initializers[name] = value
    return value


def _share_weights(graph: Any, single: Any, weights: dict[str, Any]) -> None:
    """Has the graph of one request read the weights of the outer graph; its other constants go there, renamed."""
    import onnx_ir as ir

    for name, value in list(single.initializers.items()):
        single.initializers.pop(name)
        if name in weights and _same(value, weights[name]):
            ir.convenience.replace_all_uses_with(value, weights[name])
        else:
            value.name = PREFIX + name
            graph.initializers[value.name] = value


def _same(value: Any, other: Any) -> bool:
    """Whether two constants are the same to the bit."""
    a, b = value.const_value, other.const_value
    same_kind = a.dtype == b.dtype and tuple(a.shape) == tuple(b.shape)
    return bool(same_kind and a.tobytes() == b.tobytes())


def _differing(many_part: Part, single_part: Part) -> set[str]:
    """The inputs that have a request dim, and none for one request."""
    single = {port.name: port for port in single_part.inputs}
    return {port.name for port in many_part.inputs if port.name in single and _dims(port) > _dims(single[port.name])}


def _dims(port: Port) -> int:
    return len(port.leading) + len(port.shape)


def _single_branch(graph: Any, single: Any, inputs: dict[str, Any], outputs: Sequence[Any], differing: set[str]) -> Any:
    """The graph of one request on the inputs of many, of which its request is the first and only."""
    import onnx_ir as ir

    given = list(single.inputs)
    results, nodes = _emptied(single)
    first = _constant(graph, f"{PREFIX}first_dim", [0])
    before: list[Any] = []
    after: list[Any] = []
    for node in nodes:
        for value in node.outputs:
            value.name = f"{PREFIX}{value.name}"
    for value in given:
        outer = inputs[value.name]
        if value.name in differing:
            before.append(ir.Node("", "Squeeze", [outer, first]))
            outer = before[-1].outputs[0]
            outer.name = f"{PREFIX}{value.name}"
        ir.convenience.replace_all_uses_with(value, outer)
    found: list[Any] = []
    for result, output in zip(results, outputs, strict=True):
        if len(result.shape) < len(output.shape):
            after.append(ir.Node("", "Unsqueeze", [result, first]))
            after[-1].outputs[0].name = f"{result.name}.batched"
            after[-1].outputs[0].type = result.type
            found.append(after[-1].outputs[0])
        else:
            found.append(result)
    if not before and not after:
        graph.initializers.pop(first.name)
    return ir.Graph([], found, nodes=[*before, *nodes, *after], name="one_request")
