"""The calls at which a file for many requests is compared: requests of one and of many candidates, and of none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rankopt.artefacts.comparison import Reference, references
from rankopt.artefacts.formats import CONTEXT, Batching
from rankopt.artefacts.many_parts import INDEX, STATE
from rankopt.artefacts.parts import Part
from rankopt.many.apart import row_dim
from rankopt.ranker import Ranker
from rankopt.requests import Request, draw_request

DENSE = ((1,), (2, 2), (37, 37, 37), (200,) * 8)
RAGGED = ((1,), (2, 0, 3), (37, 1, 0, 12, 300))
"""Numbers of candidates of the requests of each call."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of one call. `order` [R]: where the rows of the call stand among those of request after request."""

    each: tuple[Request, ...]
    order: Tensor

    @property
    def candidates(self) -> int:
        """Of all requests."""
        return sum(request.candidates for request in self.each)

    @property
    def lengths(self) -> Tensor:
        """How many candidates each request has, [B]."""
        return torch.tensor([request.candidates for request in self.each], dtype=torch.int64)

    def arguments(self, part: Part, batching: Batching, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The inputs of a part by name; `state` is what the context stage returned."""
        found: dict[str, Tensor] = {}
        for port in part.inputs:
            if port.role == INDEX:
                found[port.name] = self._index(batching)
            elif port.role == STATE:
                found[port.name] = (state or {})[port.path]
            elif not port.leading:  # a scalar
                found[port.name] = self._inputs(port.role)[0][port.path]
            else:
                found[port.name] = self._joined([each[port.path] for each in self._inputs(port.role)], port.leading)
        return found

    def _inputs(self, role: str) -> list[dict[str, Tensor]]:
        return [request.context if role == CONTEXT else request.target for request in self.each]

    def _joined(self, tensors: list[Tensor], leading: tuple[str, ...]) -> Tensor:
        if leading == ("B", "N"):
            return torch.stack(tensors)
        joined = torch.cat(tensors)
        return joined if leading == ("B",) else joined[self.order]

    def _index(self, batching: Batching) -> Tensor:
        if batching is Batching.LENGTHS:
            return self.lengths
        return torch.arange(len(self.each)).repeat_interleave(self.lengths)[self.order]


def many_references(ranker: Ranker, examples: Mapping[str, Tensor], batching: Batching) -> list[Reference]:
    """The truth for some calls: every request for itself, by the original on its tiled rows."""
    generator = torch.Generator().manual_seed(0)
    calls = DENSE if batching is Batching.DENSE else RAGGED
    return [_reference(ranker, examples, batching, lengths, generator) for lengths in calls]


def _reference(
    ranker: Ranker,
    examples: Mapping[str, Tensor],
    batching: Batching,
    lengths: Sequence[int],
    generator: torch.Generator,
) -> Reference:
    each = tuple(draw_request(ranker.interface.roles, examples, n, generator) for n in lengths)
    alone = references(ranker, [request for request in each if request.candidates])
    rows = sum(lengths)
    shuffled = batching is Batching.REQUEST_OF
    order = torch.randperm(rows, generator=generator) if shuffled else torch.arange(rows)
    results: Any = ranker.stages.whole.graph.output_node().args[0]
    dims = [row_dim(node.meta["expr"]) for node in results]

    def together(outputs_of: Callable[[Reference], Sequence[Tensor]]) -> list[Tensor]:
        outputs = zip(dims, zip(*(outputs_of(reference) for reference in alone), strict=True), strict=True)
        if batching is Batching.DENSE:
            return [torch.stack(tensors) for _, tensors in outputs]
        return [torch.cat(tensors, dim or 0).index_select(dim or 0, order) for dim, tensors in outputs]

    exact = [reference.rewritten64 for reference in alone]
    return Reference(
        Requests(each, order),
        together(lambda reference: reference.truth),
        together(lambda reference: reference.original),
        None if None in exact else together(lambda reference: reference.rewritten64 or []),
    )
