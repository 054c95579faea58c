"""Parts for many requests in one call, from the graphs that `rankopt.many` derives.

    dense         context [B, ...], target [B, N, ...]                    -> outputs [B, N, ...]
    lengths       context [B, ...], target [R, ...], lengths [B]          -> outputs [R, ...]
    request_of    context [B, ...], target [R, ...], request_of [R]       -> outputs [R, ...]

and in stages with the state [B, ...] between them. What Python works out from the numbers of a call (`many.rows`), the
program works out itself; the rows of each request are padded to the longest of the call where a product needs that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from rankopt.artefacts.formats import CANDIDATE, CONTEXT, Batching, plain_names
from rankopt.artefacts.parts import (
    COUNTED,
    Part,
    Port,
    StagesModule,
    Uses,
    of_role,
    output_names,
    places,
    request_ports,
    stage_parts,
    whole_part,
)
from rankopt.errors import ExportError
from rankopt.many.rows import longest, owners, padded_layout, row_counts
from rankopt.many.stages import Runnable
from rankopt.onnx_runtime import reason
from rankopt.programs import input_values
from rankopt.ranker import Ranker
from rankopt.selectors import Role

STATE, INDEX = "state", "index"
"""The roles of what a request hands to its candidates, and of what says whose each row is."""


@dataclass(frozen=True, slots=True)
class ManyPart(Part):
    """A part whose calls hold many requests."""

    single: Part
    """The part for one request."""

    def program(self) -> ExportedProgram:
        """The part as one program, for any number of requests and candidates.

        torch notes as a condition on sizes which way it went where a reshape is a view at some sizes and a copy at
        others. Reshapes decide that anew in every call, so the conditions would refuse sizes for which the program
        holds. That inputs are of the same requests is still checked.
        """
        try:
            program = Part.program(self)
        except ExportError:  # torch cannot prove every condition that it makes, though it may hold for all sizes
            program = self._for_any_size()
        program._guards_code = []
        return program

    def _for_any_size(self) -> ExportedProgram:
        """The program where torch shall not prove that it holds for all sizes: the comparison will tell."""
        try:
            program = self.exported(dict.fromkeys(COUNTED, Dim.AUTO))
        except Exception as error:  # torch raises whatever its layers raise
            raise ExportError(
                f"many requests per call cannot be written: {reason(error)}\n"
                "  expected: ops that torch.export follows for any number of requests\n"
                "  fix: export a file for one request per call"
            ) from error
        self._require_any_size(program)
        return program

    def _require_any_size(self, program: ExportedProgram) -> None:
        """Raises ExportError where torch has fixed a size that is counted, or taken two of them for one."""
        found: dict[str, set[str]] = {count: set() for port in self.inputs for count in port.leading}
        for port, value in zip(self.inputs, input_values(program).values(), strict=True):
            for count, size in zip(port.leading, value.shape, strict=False):
                found[count].add(str(size))
        symbols = [str(size) for sizes in found.values() for size in sizes]
        if any(symbol.isdigit() for symbol in symbols) or len(set(symbols)) != len(found):
            raise ExportError(
                f"torch.export fixes a number of requests or candidates: {found}.\n"
                "  expected: a program for any of them\n  fix: export a file for one request per call"
            )


class ManyModule(StagesModule):
    """Stages for many requests. The candidate stage of a ragged call takes `many.forms.INDEX` after its inputs."""

    def __init__(self, ports: Sequence[Port], batching: Batching, pads: bool, weights: Sequence[Tensor], *rest: object):
        super().__init__(weights, *rest)  # type: ignore[arg-type]
        self._leading = [port.leading for port in ports]
        self._batching = batching
        self._pads = pads

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The results of the last stage."""
        sizes = self._sizes(inputs)
        if self._batching is Batching.DENSE or "R" not in sizes:
            return super().forward(*inputs)
        *tensors, given = inputs
        requests, rows = sizes.get("B", 0), sizes["R"]
        grouped = self._batching is Batching.LENGTHS
        request_of = owners(given, rows) if grouped else given
        if not self._pads:  # nobody reads where rows are in a padded layout
            return super().forward(*tensors, request_of, given.new_zeros(requests, 0), request_of)
        lengths = given if grouped else row_counts(given, requests)
        most: Any = longest(lengths).item()  # a size that only the values of a call tell: no int may be made of it
        torch._check(most >= 0)
        return super().forward(*tensors, request_of, *padded_layout(request_of, lengths, most, grouped))

    def _sizes(self, inputs: Sequence[Tensor]) -> dict[str, int]:
        """The sizes that are counted, the same in all inputs: said aloud, so that a program knows it too."""
        sizes: dict[str, int] = {}
        for tensor, leading in zip(inputs, self._leading, strict=True):
            for dim, count in enumerate(leading):
                size = sizes.setdefault(count, tensor.shape[dim])
                torch._check(tensor.shape[dim] == size)
        return sizes


def many_part(ranker: Ranker, batching: Batching) -> Part:
    """Both stages in one: context and target inputs, each in call order, then lengths or request_of."""
    ports, stages = many_ports(ranker, batching), ranker.stages
    context, target = of_role(ports, CONTEXT), of_role(ports, Role.TARGET.value)
    first, second = stages_together(ranker, batching)
    taken = tuple(len(context) + i for i in _candidate_inputs(ranker, target, batching))
    uses = [
        Uses(stages.context_weights, places(stages.context_inputs, context)),
        Uses(stages.candidate_weights, taken),
    ]
    graphs = [first.functional, second.functional]
    module = ManyModule(ports, batching, second.pads, ranker.prepared(), graphs, uses)
    return ManyPart(module, ports, output_names(ranker), whole_part(ranker))


def many_stage_parts(ranker: Ranker, batching: Batching) -> dict[str, Part]:
    """The context stage and the candidate stage for many requests, each with the weights that it reads."""
    ports, stages, prepared = many_ports(ranker, batching), ranker.stages, ranker.prepared()
    context, target, index = (of_role(ports, role) for role in (CONTEXT, Role.TARGET.value, INDEX))
    batched = ranker.many.plan.many.batched
    state = tuple(
        Port(t.name, t.name, STATE, t.shape, t.dtype, ("B",) if t.name in batched else ()) for t in stages.state
    )
    first, second = stages_together(ranker, batching)
    weights = [[prepared[i] for i in used] for used in (stages.context_weights, stages.candidate_weights)]
    taken = (*range(len(state)), *(len(state) + i for i in _candidate_inputs(ranker, target, batching)))
    uses = [
        Uses(tuple(range(len(weights[0]))), places(stages.context_inputs, context)),
        Uses(tuple(range(len(weights[1]))), taken),
    ]
    inputs = (*state, *target, *index)
    alone = ManyModule(context, batching, False, weights[0], [first.functional], uses[:1])
    behind = ManyModule(inputs, batching, second.pads, weights[1], [second.functional], uses[1:])
    single = stage_parts(ranker)
    return {
        CONTEXT: ManyPart(alone, context, tuple(port.name for port in state), single[CONTEXT]),
        CANDIDATE: ManyPart(behind, inputs, output_names(ranker), single[CANDIDATE]),
    }


def stages_together(ranker: Ranker, batching: Batching) -> tuple[Runnable, Runnable]:
    """The graphs of both stages. Raises ExportError where several requests cannot be one call."""
    many = ranker.many.plan.many
    for graph in (many.context, many.dense if batching is Batching.DENSE else many.ragged):
        if isinstance(graph, str):
            raise ExportError(
                f"the requests of a call cannot be run together: {graph}.\n"
                "  expected: a model that scores every candidate for itself\n"
                "  fix: export a file for one request per call; many='dense' also allows ops that mix candidates"
            )
    return many.context, many.dense if batching is Batching.DENSE else many.ragged  # type: ignore[return-value]


def many_ports(ranker: Ranker, batching: Batching) -> tuple[Port, ...]:
    """The inputs of a call: those of one request, with their requests and rows, then lengths or request_of."""
    rows = ("B", "N") if batching is Batching.DENSE else ("R",)
    ports = [_many_port(port, rows) for port in request_ports(ranker)]
    if batching is Batching.DENSE:
        return tuple(ports)
    *_, name = plain_names([*((port.name, port.role) for port in ports), (batching.value, INDEX)])
    leading = ("B",) if batching is Batching.LENGTHS else ("R",)
    return (*ports, Port(name, batching.value, INDEX, (), torch.int64, leading))


def _many_port(port: Port, rows: tuple[str, ...]) -> Port:
    if port.role == CONTEXT and port.shape:
        return replace(port, shape=port.shape[1:], leading=("B",))
    return replace(port, leading=rows) if port.leading else port


def _candidate_inputs(ranker: Ranker, target: Sequence[Port], batching: Batching) -> tuple[int, ...]:
    """What the candidate stage takes of the target inputs, and of the index that follows them."""
    index = () if batching is Batching.DENSE else range(len(target), len(target) + 3)
    return (*places(ranker.stages.target_inputs, target), *index)
