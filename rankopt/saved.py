"""Saved rankers: one .pt2 file, which plain torch can read too.

The file is a torch.export program f(context, target) of the whole rewritten ranker, from the original
parameters under their original names, with a description beside it (`rankopt.metadata`). The stages are not
stored: they follow from the graph, and are derived again when it is read. So the file is no larger than the
model's, and takes new weights. A ranker with several plans is saved as the one for the largest numbers of
candidates; the others lie beside it, as graphs over the same tensors.

    ranker.save("ranker.pt2")
    ranker = rankopt.load("ranker.pt2")            # bit for bit the same scores
    program = torch.export.load("ranker.pt2")      # without rankopt: program.module()(context, target)
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx import traceback

from rankopt.archive import DESCRIPTION, plan_file, read_description, read_plans, read_program
from rankopt.atomic import require_writable, write_whole
from rankopt.errors import FormatError
from rankopt.exporting import exported, tracing_conditions
from rankopt.interface import InputInfo
from rankopt.metadata import Metadata
from rankopt.ranges import examples_of, ranges_to_json
from rankopt.ranker import Ranker
from rankopt.reading import ORIGIN, inputs_of, read, read_plan
from rankopt.report.tree import Report
from rankopt.selectors import Role
from rankopt.stages import Names, split
from rankopt.tensors import get_tensor, put_tensor
from rankopt.version import __version__

_EXAMPLE_CANDIDATES = 7
"""Rows of the target inputs with which a ranker is exported: neither 0 nor 1, which torch would fix."""


def save(ranker: Ranker, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Writes a ranker to one file, whole or not at all.

    Raises OutputError where `path` exists and `overwrite` is not set, or cannot be written; FormatError for a
    ranker whose call holds what no file can; ExportError for an op that torch.export does not follow.
    """
    target = Path(path)
    require_writable(target, overwrite)
    description = json.dumps(describe(ranker).to_json(), separators=(",", ":"))
    *others, last = [ranker.at(span.last) for span in ranker.interface.ranges]
    program = whole_program(ranker, last)
    files = {DESCRIPTION: description}
    files |= {plan_file(i): plan_program(ranker, other) for i, other in enumerate(others)}
    with tracing_conditions():
        write_whole(target, lambda file: torch.export.save(program, file, extra_files=files), overwrite)


def load(path: str | os.PathLike[str], trust: bool = False) -> Ranker:
    """The ranker in a file that `save` wrote. Nothing is unpickled, unless the file is trusted.

    Raises FormatError where the file is missing, truncated, another kind of model, or of a version that
    cannot be read.
    """
    source = Path(path)
    metadata = read_metadata(source)
    return assemble(read_program(source, trust), read_plans(source, len(metadata.plans), trust), metadata)


def read_metadata(path: Path) -> Metadata:
    """What a file says of the ranker in it, graph and weights unread. Raises FormatError like `load`."""
    data = read_description(path)
    try:
        return Metadata.from_json(data)
    except FormatError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: {DESCRIPTION} is damaged: {error!r}.\n  fix: optimize the model again") from error


def assemble(program: ExportedProgram, plans: Sequence[ExportedProgram], metadata: Metadata) -> Ranker:
    """The ranker that a saved program, the further plans and their description make."""
    inputs = inputs_of(metadata.context, metadata.target)
    whole = read(program, inputs, metadata.constants)
    pairs = zip(plans, metadata.plans, strict=True)
    try:
        others = [read_plan(plan, inputs, tensors, whole) for plan, tensors in pairs]
    except KeyError as error:
        raise FormatError(
            f"a plan reads {error}, which is not in the file.\n  fix: optimize the model again"
        ) from error
    names = Names()
    stages = [split(plan.exprs, plan.outputs, plan.constants, names) for plan in (whole, *reversed(others))]
    ranker = Ranker(stages[::-1], metadata.interface, whole.weights, metadata.state_dtype)
    ranker.examples = examples_of(metadata.ranges)
    ranker.fixed = metadata.fixed
    ranker.not_in_checkpoints = metadata.not_in_checkpoints
    ranker.set_weights_hash(metadata.weights)
    if metadata.report is not None:
        with contextlib.suppress(FormatError):  # a report of another version is no reason not to serve
            ranker.report = Report.from_json(metadata.report)
    return ranker


def describe(ranker: Ranker) -> Metadata:
    """What the file will say of the ranker."""
    return Metadata(
        interface=ranker.interface,
        context=tuple(info.name for info in ranker.interface.expected(Role.CONTEXT)),
        target=tuple(info.name for info in ranker.interface.expected(Role.TARGET)),
        constants=tuple(_constant_names(ranker).values()),
        plans=tuple(tuple(_tensors(ranker, ranker.at(span.last))) for span in ranker.interface.ranges[:-1]),
        weights=ranker.weights_hash(),
        report=None if ranker.report is None else ranker.report.to_json(),
        versions={"rankopt": __version__, "torch": torch.__version__},
        ranges=ranges_to_json(ranker.examples),
        fixed=ranker.fixed,
        state_dtype=ranker.state_dtype,
        not_in_checkpoints=ranker.not_in_checkpoints,
    )


# ----------------------------------------------------------------------------------------------------- export


def whole_program(ranker: Ranker, plan: Ranker) -> ExportedProgram:
    """f(context, target) as one program, for any number of candidates, with all tensors of the ranker.

    `plan` is the ranker with the one plan that is written.
    """
    return _exported(_Whole(ranker, plan), ranker, ())


def plan_program(ranker: Ranker, plan: Ranker) -> str:
    """f(tensors, context, target) of another plan of the ranker, without any tensor in it, as text."""
    tensors = {name: tensor.detach() for name, tensor in _tensors(ranker, plan).items()}
    program = _exported(_Open(plan), ranker, (tensors,))
    file = io.BytesIO()
    with tracing_conditions():
        torch.export.save(program, file)
    return b64encode(file.getvalue()).decode()


def _exported(module: nn.Module, ranker: Ranker, tensors: tuple[dict[str, Tensor], ...]) -> ExportedProgram:
    device = next((tensor.device for tensor in ranker.weights().values()), None)
    context = {info.name: _example(info, 1, device) for info in ranker.interface.expected(Role.CONTEXT)}
    target = {info.name: _example(info, _EXAMPLE_CANDIDATES, device) for info in ranker.interface.expected(Role.TARGET)}
    candidates = Dim("candidates", min=0)
    given = {"tensors": dict.fromkeys(tensors[0])} if tensors else {}
    shapes = {**given, "context": dict.fromkeys(context), "target": {name: {0: candidates} for name in target}}
    with traceback.preserve_node_meta():
        program = exported(module, (*tensors, context, target), shapes)
    if tensors:
        program.example_inputs = None  # they would be written
    for node in program.graph.nodes:  # neither this file's lines nor what the exporter noted belong in the file
        origin = node.meta.get("custom", {}).get(ORIGIN)
        node.meta = {key: value for key, value in node.meta.items() if key in ("val", "nn_module_stack")}
        if origin is not None:
            node.meta["custom"] = {ORIGIN: origin}
    return program


class _Open(nn.Module):
    """All stages of a ranker with one plan at once, over tensors that are passed to it."""

    def __init__(self, plan: Ranker) -> None:
        super().__init__()
        self.training = False
        self._plan = (plan,)  # in a tuple, so that it is no part of this module

    def forward(self, tensors: dict[str, Tensor], context: dict[str, Tensor], target: dict[str, Tensor]) -> Any:
        """The original's output for the tiled rows. context: name -> [1, ...]; target: name -> [N, ...].

        An output that has more than tensors is given as the tuple of its tensors: torch cannot read the rest
        back.
        """
        (plan,) = self._plan
        arguments = list(tensors.values())
        arguments += [context[name] for name in plan.stages.context_inputs]
        arguments += [target[name] for name in plan.stages.target_inputs]
        outputs = _run_labelled(plan.stages.whole, arguments)
        return tuple(outputs) if plan.interface.output_constants else plan.interface.unflatten_output(outputs)


class _Whole(nn.Module):
    """The same over the ranker's own parameters, without what is derived from them."""

    def __init__(self, ranker: Ranker, plan: Ranker) -> None:
        super().__init__()
        self.training = False
        names = _constant_names(ranker)
        for name, tensor in ranker.weights().items():
            put_tensor(self, name, tensor)
        for name, tensor in ranker.constants().items():
            put_tensor(self, names[name], tensor, persistent=False)
        # In a tuple, so that it is no part of this module; mangled, so that no layer of a model has the name.
        self.__open = _Open(plan), list(_tensors(ranker, plan))

    def forward(self, context: dict[str, Tensor], target: dict[str, Tensor]) -> Any:
        """See `_Open`."""
        inner, names = self.__open
        return inner({name: get_tensor(self, name) for name in names}, context, target)


def _tensors(ranker: Ranker, plan: Ranker) -> dict[str, Tensor]:
    """What a plan reads, by the names in the file, in the order of its arguments."""
    names = _constant_names(ranker)
    return {names.get(name, name): get_tensor(plan, name) for name in plan.source_names}


def _constant_names(ranker: Ranker) -> dict[str, str]:
    """The names of the compiler's constants in the file: numbered without gaps, as they will be when read."""
    return {name: f"_constant_{i}" for i, name in enumerate(ranker.constants())}


def _run_labelled(graph_module: fx.GraphModule, arguments: Sequence[Tensor]) -> list[Tensor]:
    """Runs a graph so that whoever traces it notes at each node which node of the model it comes from."""
    values = iter(arguments)
    env: dict[fx.Node, Any] = {}
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            env[node] = next(values)
        elif node.op == "output":
            return [env[item] for item in node.args[0]]
        else:
            origin = node.meta["expr"].origin
            args, kwargs = fx.map_arg((node.args, node.kwargs), env.__getitem__)
            with traceback.annotate({ORIGIN: {"node": origin.node, "rule": origin.rule}}):
                env[node] = node.target(*args, **kwargs)
    raise AssertionError("a graph ends with its output")


def _example(info: InputInfo, rows: int, device: torch.device | None) -> Tensor:
    shape = () if info.shape is None else (rows, *info.shape)
    return torch.zeros(shape, dtype=info.dtype, device=device)
