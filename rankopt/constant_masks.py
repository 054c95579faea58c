"""Selections by a constant mask, made selections by a constant index, whose result has a static shape.

    masked_select(x, mask)      x [R, F, F], mask [F, F]  ->  u0 elements, known only at run time
    flatten(index_select(flatten(x, 1), 1, indices))      ->  R * len(indices) elements

The mask is a parameter, a buffer or made of them, never of an input: what it selects is known now.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from rankopt.functional import simplify

aten = torch.ops.aten


def fold_constant_masks(graph: fx.Graph, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
    """Rewrites `graph` in place, where it has such selections, and reads its shapes again.

    Args:
        graph: functional, with a placeholder per weight and per input, and shapes in `meta["val"]`.
        weights: by name of their placeholder.

    Returns: the constants for which a placeholder was added, by its name; and the weights whose values were looked at,
    by their placeholders: with other values the graph would be another.
    """
    folding = _Folding(graph, weights)
    for node in list(graph.nodes):
        if node.target in _REWRITES:
            _REWRITES[node.target](folding, node)
        elif node.meta.get("unbacked_bindings"):
            folding.replace_by_value(node)
    if folding.changed:
        simplify(graph)
        _read_shapes_again(graph, folding.constants)
    return folding.constants, frozenset(folding.read)


class _Folding:
    """The part of a graph that follows from its weights alone, and the constants made of it."""

    def __init__(self, graph: fx.Graph, weights: Mapping[str, Tensor]) -> None:
        self.graph = graph
        self.constants: dict[str, Tensor] = {}
        self.changed = False
        self.read: set[str] = set()
        """Placeholders of weights that some value was computed from."""
        self._values: dict[fx.Node, Any] = {}
        self._fixed: set[fx.Node] = set()
        for node in graph.nodes:
            if node.op == "placeholder" and node.name in weights:
                self._values[node] = weights[node.name]
                self._fixed.add(node)
            elif node.op == "call_function" and self._fixed.issuperset(node.all_input_nodes):
                self._fixed.add(node)

    def value(self, node: Any) -> Any:
        """What the node computes, if that follows from weights alone, else None."""
        if node not in self._fixed:
            return None
        if node.op == "placeholder":
            self.read.add(node.name)
        if node not in self._values:
            args, kwargs = fx.map_arg((node.args, node.kwargs), self.value)
            self._values[node] = node.target(*args, **kwargs)
        return self._values[node]

    def constant(self, tensor: Tensor) -> fx.Node:
        """A new placeholder, before the user's inputs, that stands for `tensor`."""
        first_input = next(n for n in self.graph.nodes if n.op != "placeholder" or n not in self._fixed)
        with self.graph.inserting_before(first_input):
            node = self.graph.placeholder(f"constant_index_{len(self.constants)}")
        self._fixed.add(node)
        self._values[node] = self.constants[node.name] = tensor
        return node

    def replace(self, node: fx.Node, by: fx.Node) -> None:
        """Has every user of `node` read `by`."""
        by.meta["stack_trace"] = node.meta.get("stack_trace")
        node.replace_all_uses_with(by)
        self.changed = True

    def replace_by_value(self, node: fx.Node) -> None:
        """Replaces a node by what it computes, if that is known: a tensor, or a number in its users."""
        value = self.value(node)
        if isinstance(value, Tensor):
            self.replace(node, self.constant(value))
        elif isinstance(value, (tuple, list)):  # torch.where(mask), a tensor per dim
            for part in list(node.users):
                self.replace(part, self.constant(self.value(part)))
        elif isinstance(value, (bool, int, float)):
            for user in list(node.users):
                user.args, user.kwargs = fx.map_arg(
                    (user.args, user.kwargs), lambda operand: value if operand is node else operand
                )
            self.changed = True


def _masked_select(folding: _Folding, node: fx.Node) -> None:
    """The elements at a mask over the last dims of x are, with these dims flattened, those at its indices."""
    x, mask = node.args[0], folding.value(node.args[1])
    if mask is None or not isinstance(x, fx.Node):
        return
    while mask.dim() > 1 and mask.shape[0] == 1:
        mask = mask[0]
    shape = x.meta["val"].shape
    start = len(shape) - mask.dim()
    covered = shape[start:]
    if start < 0 or not all(isinstance(size, int) for size in covered):
        return
    if any(size not in (1, whole) for size, whole in zip(mask.shape, covered, strict=True)):
        return  # x is broadcast too
    indices = mask.expand(covered).flatten().nonzero().flatten()
    with folding.graph.inserting_before(node):
        flat = folding.graph.call_function(aten.flatten.using_ints, (x, start, -1))
        picked = folding.graph.call_function(aten.index_select.default, (flat, start, folding.constant(indices)))
        elements = folding.graph.call_function(aten.flatten.using_ints, (picked, 0, -1))
    folding.replace(node, elements)


def _index(folding: _Folding, node: fx.Node) -> None:
    """A boolean index is an index by the positions where it is true, one per dim that it covers."""
    indices: list[Any] = []
    for index in node.args[1]:  # type: ignore[union-attr]  # a list, by the operator's schema
        dtype = getattr(index.meta.get("val"), "dtype", None) if isinstance(index, fx.Node) else None
        if dtype not in (torch.bool, torch.uint8):
            indices.append(index)
            continue
        mask = folding.value(index)
        if mask is None:
            return
        indices += [folding.constant(positions) for positions in mask.nonzero(as_tuple=True)]
    if indices == list(node.args[1]):  # type: ignore[arg-type]
        return
    with folding.graph.inserting_before(node):
        folding.replace(node, folding.graph.call_function(aten.index.Tensor, (node.args[0], indices)))


_REWRITES: dict[Any, Callable[[_Folding, fx.Node], None]] = {
    aten.masked_select.default: _masked_select,
    aten.index.Tensor: _index,
}


def _read_shapes_again(graph: fx.Graph, constants: Mapping[str, Tensor]) -> None:
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    mode = next(node.meta["val"].fake_mode for node in placeholders if node.name not in constants)
    for node in graph.nodes:
        node.meta.pop("unbacked_bindings", None)
    for node in placeholders:
        if node.name in constants:
            node.meta["val"] = mode.from_tensor(constants[node.name], static_shapes=True)
    values = [node.meta["val"] for node in placeholders]
    _Shapes(fx.GraphModule({}, graph), mode).propagate_dont_convert_inputs(*values)


CELLS = frozenset(
    {aten.gru_cell.default, aten.lstm_cell.default, aten.rnn_tanh_cell.default, aten.rnn_relu_cell.default}
)
"""Recurrent cells. torch compares their numbers of rows as plain ints, which fixes them; the result is as the state."""


class _Shapes(FakeTensorProp):
    """Computes the shapes that are not known, or depended on a mask. Others stay: some ops fix the number of rows."""

    def run_node(self, n: fx.Node) -> Any:
        """The known value of a node, or what FakeTensorProp says."""
        known = n.meta.get("val")
        if n.op == "call_function" and n.target in CELLS:
            with self._mode:
                n.meta["val"] = fx.map_arg(n.args[1], lambda state: torch.empty_like(self.env[state]))
            return n.meta["val"]
        if n.op != "call_function" or known is None or free_unbacked_symbols(known):
            return super().run_node(n)
        return known
