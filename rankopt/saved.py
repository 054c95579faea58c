"""Saved rankers: one .pt2 file, which plain torch can read too.

The file is a torch.export program f(context, target) of the whole rewritten ranker, from the original
parameters under their original names, with a description beside it (`rankopt.metadata`). The stages are not
stored: they follow from the graph, and are derived again when it is read. So the file is no larger than the
model's, and takes new weights.

    ranker.save("ranker.pt2")
    ranker = rankopt.load("ranker.pt2")            # bit for bit the same scores
    program = torch.export.load("ranker.pt2")      # without rankopt: program.module()(context, target)
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx import traceback

from rankopt.archive import DESCRIPTION, read_description, read_program
from rankopt.atomic import require_writable, write_whole
from rankopt.errors import FormatError
from rankopt.exporting import tracing_conditions
from rankopt.interface import InputInfo
from rankopt.metadata import Metadata, fingerprint
from rankopt.ranges import examples_of, ranges_to_json
from rankopt.ranker import Ranker
from rankopt.reading import ORIGIN, read
from rankopt.report.tree import Report
from rankopt.selectors import Role
from rankopt.stages import split
from rankopt.tensors import get_tensor, put_tensor
from rankopt.version import __version__

_EXAMPLE_CANDIDATES = 7
"""Rows of the target inputs with which a ranker is exported: neither 0 nor 1, which torch would fix."""


def save(ranker: Ranker, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Writes a ranker to one file, whole or not at all.

    Raises OutputError where `path` exists and `overwrite` is not set, or cannot be written; FormatError for a
    ranker whose call holds what no file can.
    """
    target = Path(path)
    require_writable(target, overwrite)
    description = json.dumps(describe(ranker).to_json(), separators=(",", ":"))
    program = whole_program(ranker)
    files = {DESCRIPTION: description}
    with tracing_conditions():
        write_whole(target, lambda file: torch.export.save(program, file, extra_files=files), overwrite)


def load(path: str | os.PathLike[str], trust: bool = False) -> Ranker:
    """The ranker in a file that `save` wrote. Nothing is unpickled, unless the file is trusted.

    Raises FormatError where the file is missing, truncated, another kind of model, or of a version that
    cannot be read.
    """
    source = Path(path)
    metadata = read_metadata(source)
    return assemble(read_program(source, trust), metadata)


def read_metadata(path: Path) -> Metadata:
    """What a file says of the ranker in it, graph and weights unread. Raises FormatError like `load`."""
    data = read_description(path)
    try:
        return Metadata.from_json(data)
    except FormatError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: {DESCRIPTION} is damaged: {error!r}.\n  fix: optimize the model again") from error


def assemble(program: ExportedProgram, metadata: Metadata) -> Ranker:
    """The ranker that a saved program and its description make."""
    reading = read(program, metadata.context, metadata.target, metadata.constants)
    stages = split(reading.exprs, reading.outputs, reading.constants)
    ranker = Ranker(stages, metadata.interface, reading.weights)
    ranker.examples = examples_of(metadata.ranges)
    ranker.fixed = metadata.fixed
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
        weights=fingerprint(ranker.weights()),
        report=None if ranker.report is None else ranker.report.to_json(),
        versions={"rankopt": __version__, "torch": torch.__version__},
        ranges=ranges_to_json(ranker.examples),
        fixed=ranker.fixed,
    )


# ----------------------------------------------------------------------------------------------------- export


def whole_program(ranker: Ranker) -> ExportedProgram:
    """f(context, target) of the whole ranker as one program, for any number of candidates."""
    tensors = ranker.weights().values()
    device = next((tensor.device for tensor in tensors), None)
    context = {info.name: _example(info, 1, device) for info in ranker.interface.expected(Role.CONTEXT)}
    target = {info.name: _example(info, _EXAMPLE_CANDIDATES, device) for info in ranker.interface.expected(Role.TARGET)}
    candidates = Dim("candidates", min=0)
    shapes = {"context": dict.fromkeys(context), "target": {name: {0: candidates} for name in target}}
    with tracing_conditions(), traceback.preserve_node_meta():
        program = torch.export.export(_Whole(ranker), (context, target), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:  # neither this file's lines nor what the exporter noted belong in the file
        origin = node.meta.get("custom", {}).get(ORIGIN)
        node.meta = {key: value for key, value in node.meta.items() if key in ("val", "nn_module_stack")}
        if origin is not None:
            node.meta["custom"] = {ORIGIN: origin}
    return program


class _Whole(nn.Module):
    """All stages of a ranker at once, over its own parameters and without what is derived from them."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.training = False
        names = _constant_names(ranker)
        # In a tuple, so that it is no part of this module; mangled, so that no layer of a model has the name.
        self.__ranker = ranker, [names.get(name, name) for name in ranker.source_names]
        for name, tensor in ranker.weights().items():
            put_tensor(self, name, tensor)
        for name, tensor in ranker.constants().items():
            put_tensor(self, names[name], tensor, persistent=False)

    def forward(self, context: dict[str, Tensor], target: dict[str, Tensor]) -> Any:
        """The original's output for the tiled rows. context: name -> [1, ...]; target: name -> [N, ...].

        An output that has more than tensors is given as the tuple of its tensors: torch cannot read the rest
        back.
        """
        ranker, sources = self.__ranker
        arguments = [get_tensor(self, name) for name in sources]
        arguments += [context[name] for name in ranker.stages.context_inputs]
        arguments += [target[name] for name in ranker.stages.target_inputs]
        outputs = _run_labelled(ranker.stages.whole, arguments)
        return tuple(outputs) if ranker.interface.output_constants else ranker.interface.unflatten_output(outputs)


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
