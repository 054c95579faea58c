"""torch.export programs: a saved ranker, a stage, or the whole behind the original's own signature."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from rankopt.archive import EXPORTED
from rankopt.artefacts.parts import EXAMPLE_CANDIDATES, Part, rows_part
from rankopt.artefacts.running import Run
from rankopt.exporting import exported, tracing_conditions
from rankopt.ranker import Ranker
from rankopt.requests import Request, tile


def write(program: ExportedProgram, part: Part, path: Path, facts: Mapping[str, Any]) -> None:
    """Writes a part, which is called with flat tensors in the order of its inputs."""
    save(program, path, facts)


def save(program: ExportedProgram, path: Path, facts: Mapping[str, Any]) -> None:
    """Writes a program, with facts about it in an extra file."""
    with tracing_conditions():
        torch.export.save(program, path, extra_files={EXPORTED: json.dumps(facts)})


def load(part: Part, path: Path) -> Run:
    """The program in a file, as a function of tensors by name."""
    module = _module(path)

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(module(*(inputs[port.name] for port in part.inputs)))

    return run


# ------------------------------------------------------------------------------------- called like a ranker or a model


def run_saved_ranker(path: Path, request: Request) -> list[Tensor]:
    """The tensors that a saved ranker gives when plain torch reads it."""
    with torch.no_grad():
        return _tensors(_module(path)(dict(request.context), dict(request.target)))


def drop_in_program(ranker: Ranker) -> ExportedProgram:
    """The whole ranker behind the original's signature, nested as it was: `program.module()(*args, **kwargs)`.

    An output that has more than tensors is given as the tuple of its tensors: torch cannot read the rest back. An
    original with `**inputs` is called by keywords, as it was, with names that torch can spell.
    """
    part = rows_part(ranker)
    module = _DropIn(ranker, part)
    args, kwargs = _drop_in_call(ranker, part, {port.path: port.example() for port in part.inputs})
    rows = Dim("rows", min=1)
    arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    shapes = pytree.tree_map(lambda leaf: {0: rows} if isinstance(leaf, Tensor) and leaf.dim() else None, arguments)
    assert EXAMPLE_CANDIDATES > 1  # or torch would fix the number of rows
    program = exported(module, args, shapes, kwargs)
    for node in program.graph.nodes:  # the lines of this file are nobody's business
        node.meta.pop("stack_trace", None)
    return program


def run_drop_in(ranker: Ranker, path: Path, request: Request) -> list[Tensor]:
    """The tensors that a program gives when it is called as the original, on tiled rows."""
    args, kwargs = _drop_in_call(ranker, rows_part(ranker), tile(ranker.interface.roles, request))
    with torch.no_grad():
        return _tensors(_module(path)(*args, **kwargs))


def _drop_in_call(ranker: Ranker, part: Part, rows: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if ranker.interface.call.takes_any_keyword:
        return (), {port.name: rows[port.path] for port in part.inputs}
    return ranker.interface.call.unflatten(rows)


class _DropIn(nn.Module):
    """A part over rows, called as the original is."""

    def __init__(self, ranker: Ranker, part: Part) -> None:
        super().__init__()
        self.training = False
        self.inner = part.module
        interface = ranker.interface

        def forward(*args: Any, **kwargs: Any) -> Any:
            if interface.call.takes_any_keyword:
                rows = [kwargs[port.name] for port in part.inputs]
            else:
                rows = list(interface.call.flatten(args, kwargs).values())
            outputs = self.inner(*rows)
            return outputs if interface.output_constants else interface.unflatten_output(outputs)

        forward.__signature__ = _plain_signature(ranker, part)  # type: ignore[attr-defined]
        self.forward = forward


def _plain_signature(ranker: Ranker, part: Part) -> inspect.Signature:
    """The signature without annotations, which torch has no use for, and with keywords by name."""
    call = ranker.interface.call
    if call.takes_any_keyword:
        return inspect.Signature([inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY) for p in part.inputs])
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in call.signature.parameters.values()]
    return call.signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)


def _module(path: Path) -> nn.Module:
    with tracing_conditions():
        return torch.export.load(path).module()


def _tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
