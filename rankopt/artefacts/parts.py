"""Parts: what goes into one file, as a module of flat tensors whose weights are the prepared ones.

    whole        context [1, ...], target [N, ...]   -> outputs
    context      context [1, ...]                    -> state
    candidate    state, target [N, ...]              -> outputs
    rows         rows [N, ...], the original's       -> outputs, the context being that of row 0

The weight stage has been run: a part holds its results as buffers, and nothing of the ranker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from rankopt.artefacts.formats import CANDIDATE, CONTEXT, plain_names
from rankopt.exporting import exported
from rankopt.interface import InputInfo
from rankopt.ranker import Ranker
from rankopt.requests import Request, tile
from rankopt.selectors import Role

EXAMPLE_CANDIDATES = 7
"""Rows with which a part is exported: neither 0 nor 1, which torch would fix."""

COUNTED = {"N": "candidates", "B": "requests", "R": "rows"}
"""What leads the shapes of inputs: the candidates of a request, requests, the rows of all requests together."""

EXAMPLE_SIZES = {"N": EXAMPLE_CANDIDATES, "B": 3, "R": 5}


@dataclass(frozen=True, slots=True)
class Port:
    """An input of a part.

    `shape` is without the dims that `leading` counts: see `COUNTED`. `path` is what the ranker calls the input.
    """

    name: str
    path: str
    role: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    leading: tuple[str, ...] = ()

    def example(self) -> Tensor:
        """Zeros that the part can be called with."""
        counted = (EXAMPLE_SIZES[count] for count in self.leading)
        return torch.zeros((*counted, *self.shape), dtype=self.dtype)

    def to_json(self) -> dict[str, Any]:
        """The input as plain data; sizes that are counted go by their letter in `COUNTED`."""
        shape = [*self.leading, *self.shape]
        return {
            "name": self.name,
            "path": self.path,
            "role": self.role,
            "shape": shape,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


@dataclass(frozen=True, slots=True)
class Part:
    """A function of flat tensors in the order of `inputs`, and how its results are called."""

    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]

    def program(self) -> ExportedProgram:
        """The part as one program, for any number of candidates, and of requests where it takes several.

        A part that reads its context off the first row needs a row, any other holds for no candidates as well.
        """
        least = 1 if isinstance(self.module, RowsModule) else 0
        return self.exported({count: Dim(name, min=least) for count, name in COUNTED.items()})

    def exported(self, sizes: Mapping[str, Any]) -> ExportedProgram:
        """The part as one program, in which the sizes that are counted are these dims.

        Raises ExportError where torch cannot follow it for all of them.
        """
        shapes = (tuple({i: sizes[count] for i, count in enumerate(port.leading)} for port in self.inputs),)
        examples = tuple(port.example() for port in self.inputs)
        program = exported(self.module, examples, shapes)
        for node in program.graph.nodes:  # the lines of this file are nobody's business
            node.meta.pop("stack_trace", None)
        return program


class StagesModule(nn.Module):
    """Stages one after the other; what one returns goes to the next, between its weights and its own inputs."""

    def __init__(self, weights: Sequence[Tensor], stages: Sequence[fx.GraphModule], uses: Sequence[Uses]) -> None:
        super().__init__()
        self.training = False
        for i, tensor in enumerate(weights):
            self.register_buffer(f"weight_{i}", _own_memory(tensor.detach().cpu()))
        self._stages = tuple(stages)
        self._uses = tuple(uses)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The results of the last stage."""
        handed: tuple[Tensor, ...] = ()
        for stage, uses in zip(self._stages, self._uses, strict=True):
            weights = [self.get_buffer(f"weight_{i}") for i in uses.weights]
            handed = stage(*weights, *handed, *(inputs[i] for i in uses.inputs))
        given = {id(tensor) for tensor in (*inputs, *self.buffers())}
        return tuple(tensor.clone() if id(tensor) in given else tensor for tensor in handed)  # it has a name already


def _own_memory(tensor: Tensor) -> Tensor:
    """A slice of a larger tensor on its own, so that a file does not hold the rest of it."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


@dataclass(frozen=True, slots=True)
class Uses:
    """What a stage takes: places among the weights, and among the inputs, of the module."""

    weights: tuple[int, ...]
    inputs: tuple[int, ...]


class RowsModule(nn.Module):
    """The original's signature: rows in call order, of which the context is read off the first."""

    def __init__(self, inner: nn.Module, ranker: Ranker) -> None:
        super().__init__()
        self.training = False
        self.inner = inner
        self._roles = tuple(zip(ranker.interface.roles, ranker.interface.inputs, strict=True))
        for i, (role, _) in enumerate(self._roles):
            if role.role is Role.PACKED:
                self.register_buffer(f"context_columns_{i}", torch.tensor(role.context_columns))
                self.register_buffer(f"target_columns_{i}", torch.tensor(role.target_columns))

    def forward(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """The outputs for rows [N, ...] with N >= 1."""
        context: list[Tensor] = []
        target: list[Tensor] = []
        for i, ((role, info), values) in enumerate(zip(self._roles, rows, strict=True)):
            if role.role is Role.PACKED:
                context.append(_first_row(values).index_select(1, self.get_buffer(f"context_columns_{i}")))
                target.append(values.index_select(1, self.get_buffer(f"target_columns_{i}")))
            elif role.role is Role.CONTEXT:
                context.append(values if info.shape is None else _first_row(values))
            else:
                target.append(values)
        outputs: tuple[Tensor, ...] = self.inner(*context, *target)
        return outputs


def _first_row(rows: Tensor) -> Tensor:
    """`rows[:1]`, of which torch would have to know that there is one."""
    return rows.select(0, 0).unsqueeze(0)


# ------------------------------------------------------------------------------------------------------ the parts


def whole_part(ranker: Ranker) -> Part:
    """Both stages in one: context and target inputs, each in call order."""
    ports = request_ports(ranker)
    module = StagesModule(ranker.prepared(), *_both(ranker, ports))
    return Part(module, ports, output_names(ranker))


def rows_part(ranker: Ranker, exact: bool = False) -> Part:
    """The whole behind the original's signature; `exact` keeps names that an ONNX model gave, whatever is in them."""
    infos = ranker.interface.inputs
    names = plain_names((info.name, "rows") for info in infos)
    outputs = output_names(ranker)
    if exact and ranker.interface.call.takes_any_keyword:
        names = [info.name for info in infos]
        outputs = tuple(_output_paths(ranker))
    ports = tuple(_port(name, info, "rows") for name, info in zip(names, infos, strict=True))
    return Part(RowsModule(whole_part(ranker).module, ranker), ports, outputs)


def stage_parts(ranker: Ranker) -> dict[str, Part]:
    """The context stage and the candidate stage, each with the weights that it reads."""
    ports, stages, prepared = request_ports(ranker), ranker.stages, ranker.prepared()
    context, target = of_role(ports, CONTEXT), of_role(ports, Role.TARGET.value)
    state = tuple(Port(t.name, t.name, "state", t.shape, t.dtype) for t in stages.state)
    first = StagesModule(
        [prepared[i] for i in stages.context_weights],
        [stages.context_stage],
        [Uses(_all(stages.context_weights), places(stages.context_inputs, context))],
    )
    taken = (*_all(state), *(len(state) + i for i in places(stages.target_inputs, target)))
    second = StagesModule(
        [prepared[i] for i in stages.candidate_weights],
        [stages.candidate_stage],
        [Uses(_all(stages.candidate_weights), taken)],
    )
    return {
        CONTEXT: Part(first, context, tuple(port.name for port in state)),
        CANDIDATE: Part(second, (*state, *target), output_names(ranker)),
    }


def _both(ranker: Ranker, ports: Sequence[Port]) -> tuple[list[fx.GraphModule], list[Uses]]:
    stages = ranker.stages
    context, target = of_role(ports, CONTEXT), of_role(ports, Role.TARGET.value)
    behind = tuple(len(context) + i for i in places(stages.target_inputs, target))
    return [stages.context_stage, stages.candidate_stage], [
        Uses(stages.context_weights, places(stages.context_inputs, context)),
        Uses(stages.candidate_weights, behind),
    ]


def request_ports(ranker: Ranker) -> tuple[Port, ...]:
    """Every input that the ranker takes, also those that no score depends on: a client passes them all."""
    infos = [(info, role.value) for role in (Role.CONTEXT, Role.TARGET) for info in ranker.interface.expected(role)]
    names = plain_names((info.name, role) for info, role in infos)
    return tuple(_port(name, info, role) for name, (info, role) in zip(names, infos, strict=True))


def _port(name: str, info: InputInfo, role: str) -> Port:
    if info.shape is None:
        return Port(name, info.name, role, (), info.dtype)
    if role == CONTEXT:
        return Port(name, info.name, role, (1, *info.shape), info.dtype)
    return Port(name, info.name, role, info.shape, info.dtype, ("N",))


def of_role(ports: Sequence[Port], role: str) -> tuple[Port, ...]:
    """The inputs of one kind: context, target, or state."""
    return tuple(port for port in ports if port.role == role)


def places(paths: Sequence[str], ports: Sequence[Port]) -> tuple[int, ...]:
    """Where the inputs of these paths stand among `ports`."""
    known = {port.path: i for i, port in enumerate(ports)}
    return tuple(known[path] for path in paths)


def _all(items: Sequence[Any]) -> tuple[int, ...]:
    return tuple(range(len(items)))


def output_names(ranker: Ranker) -> tuple[str, ...]:
    """The outputs by their place in what the original returns: `score`, `top_0`; `scores` where it returns a tensor."""
    paths = _output_paths(ranker)
    taken = {port.name for port in request_ports(ranker)} | {info.name for info in ranker.interface.inputs}
    named = [f"output_{path}" if path.isdigit() or re.sub(r"\W", "_", path) in taken else path for path in paths]
    return tuple(plain_names((name, str(i)) for i, name in enumerate(named)))


def _output_paths(ranker: Ranker) -> list[str]:
    spec, constants = ranker.interface.out_spec, ranker.interface.output_constants
    leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))
    return ["_".join(str(_key(key)) for key in path) or "scores" for path, i in leaves if i not in constants]


def _key(key: Any) -> Any:
    return getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))


# ------------------------------------------------------------------------------------------------------ arguments


def request_arguments(part: Part, request: Request, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The inputs of a part for a request, by name; `state` is what the context stage returned."""
    groups = {CONTEXT: request.context, Role.TARGET.value: request.target, "state": state or {}}
    return {port.name: groups[port.role][port.path] for port in part.inputs}


def rows_arguments(part: Part, ranker: Ranker, request: Request) -> dict[str, Tensor]:
    """The inputs of a part over rows: the request, tiled."""
    rows = tile(ranker.interface.roles, request)
    return {port.name: rows[port.path] for port in part.inputs}
