"""Reading: an exported ranker as expressions again, so that its stages can be derived.

A saved ranker is one graph, f(weights, context, target) -> scores. Every node is read as the call that it is;
its stage is the join of its operands' stages, as when the program was first written, and `stages.split` does
the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from rankopt.axes import Rows, Shape
from rankopt.errors import FormatError
from rankopt.expressions import Expr, Origin, Stage, reachable
from rankopt.program import Program
from rankopt.sizes import symbolic_size

ORIGIN = "rankopt"
"""Key under which an exported node keeps the node of the model that it comes from, in `meta["custom"]`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A program that was read: its expressions in order, which of them are the outputs, its constants."""

    exprs: list[Expr]
    outputs: list[Expr]
    constants: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    """The model's tensors by their names in the model."""
    program: Program
    tensors: Mapping[str, Expr]
    """The weights and constants, by their names in the graph."""


Inputs = Sequence[tuple[str, Stage]]
"""Names and stages of the inputs of a graph, in its order."""


def inputs_of(context: Sequence[str], target: Sequence[str]) -> Inputs:
    """The inputs of an exported ranker: those of the context, then those of the target."""
    return [(name, Stage.CONTEXT) for name in context] + [(name, Stage.CANDIDATE) for name in target]


def read(program: ExportedProgram, inputs: Inputs, constants: Sequence[str]) -> Reading:
    """The expressions of an exported ranker, of whose buffers `constants` are the compiler's and not the model's.

    Raises FormatError where the graph is not one that a ranker was saved as.
    """
    return _Reader(program, inputs, set(constants), Program(), {}).read()


def read_plan(program: ExportedProgram, inputs: Inputs, tensors: Sequence[str], first: Reading) -> Reading:
    """The expressions of another plan, which takes `tensors` of the ranker that was read first, then the inputs."""
    taken = [(name, Stage.WEIGHT) for name in tensors]
    return _Reader(program, [*taken, *inputs], set(), first.program, dict(first.tensors)).read()


class _Reader:
    def __init__(
        self,
        exported: ExportedProgram,
        inputs: Inputs,
        constants: set[str],
        program: Program,
        tensors: dict[str, Expr],
    ) -> None:
        self.exported = exported
        self.inputs = inputs
        self.constants = constants
        self.program = program
        self.tensors = tensors
        self.rows = sympy.Symbol("no_candidates")
        self.weights: dict[str, Tensor] = {}

    def read(self) -> Reading:
        """Node by node, in the order of the graph."""
        env: dict[fx.Node, Expr] = {}
        self._leaves(env)
        outputs: list[Expr] = []
        for node in self.exported.graph.nodes:
            if node.op == "output":
                outputs = [env[item] for item in node.args[0] if isinstance(item, fx.Node)]
            elif node.op == "call_function" and "val" in node.meta:  # what has no value is an assertion
                env[node] = self._call(node, env)
        constants = self.program.constants
        return Reading(reachable(outputs), outputs, constants, self.weights, self.program, self.tensors)

    def _leaves(self, env: dict[fx.Node, Expr]) -> None:
        nodes = {node.name: node for node in self.exported.graph.find_nodes(op="placeholder")}
        tensors = {**self.exported.state_dict, **self.exported.constants}
        specs = self.exported.graph_signature.input_specs
        given = [nodes[spec.arg.name] for spec in specs if spec.kind is InputKind.USER_INPUT]
        if len(given) != len(self.inputs):
            raise FormatError(
                f"the program has {len(given)} inputs, but {len(self.inputs)} are described.\n"
                "  fix: save the ranker again"
            )
        self._find_rows(given)
        for spec in specs:
            if spec.kind is not InputKind.USER_INPUT and spec.target is not None:
                env[nodes[spec.arg.name]] = self.tensors[spec.target] = self._weight(spec.target, tensors[spec.target])
        for node, (name, stage) in zip(given, self.inputs, strict=True):
            value = node.meta["val"]
            if stage is Stage.WEIGHT:
                env[node] = self.tensors[name]
                continue
            env[node] = self.program.input(name, self._shape(value), value.dtype, stage)

    def _find_rows(self, given: Sequence[fx.Node]) -> None:
        """The symbol of the number of candidates: dim 0 of every target input."""
        for node, (_, stage) in zip(given, self.inputs, strict=True):
            if stage is Stage.CANDIDATE and isinstance(size := node.meta["val"].shape[0], torch.SymInt):
                self.rows = size.node.expr

    def _weight(self, name: str, tensor: Tensor) -> Expr:
        if name in self.constants:
            return self.program.constant(tensor.detach())
        self.weights[name] = tensor
        return self.program.weight(name, tensor)

    def _call(self, node: fx.Node, env: Mapping[fx.Node, Expr]) -> Expr:
        self.program.origin = Origin(**node.meta.get("custom", {}).get(ORIGIN, {}))
        assert callable(node.target)  # it is a call
        args, kwargs = _plug((node.args, node.kwargs), env)
        value = node.meta["val"]
        if isinstance(value, Tensor):
            return self.program.call(node.target, *args, shape=self._shape(value), out=value.dtype, **kwargs)
        out = torch.float32 if isinstance(value, tuple | list) else torch.int64
        return self.program.call(node.target, *args, shape=None, out=out, **kwargs)

    def _shape(self, value: Tensor) -> Shape:
        found = [symbolic_size(size, self.rows) for size in value.shape]
        return tuple(Rows() if size is None else size for size in found)


def _plug(value: Any, env: Mapping[fx.Node, Expr]) -> Any:
    """Arguments of a node as arguments of an expression."""
    if isinstance(value, fx.Node):
        return env[value]
    if isinstance(value, tuple):
        return tuple(_plug(item, env) for item in value)
    if isinstance(value, list):
        return [_plug(item, env) for item in value]
    if isinstance(value, dict):
        return {name: _plug(item, env) for name, item in value.items()}
    return value
