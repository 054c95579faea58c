"""The calls at which a file for many requests is compared: requests of one and of many candidates, and of none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rankopt.agreement import Agreement
from rankopt.artefacts.comparison import Call, Reference, references
from rankopt.artefacts.formats import CONTEXT, Batching
from rankopt.artefacts.many_parts import INDEX, STATE, many_ports
from rankopt.artefacts.parts import Part, Port
from rankopt.axes import Rows
from rankopt.capture import CapturedModel
from rankopt.expressions import Expr
from rankopt.many.apart import row_dim
from rankopt.ranker import Ranker
from rankopt.requests import Request, draw_request
from rankopt.selectors import Role

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
        known = state or {}
        return {p.name: known[p.path] if p.role == STATE else self.argument(p, batching) for p in part.inputs}

    def argument(self, port: Port, batching: Batching) -> Tensor:
        """One input of the call."""
        if port.role == INDEX:
            return self._index(batching)
        if not port.leading:  # a scalar
            return self._inputs(port.role)[0][port.path]
        return self._joined([each[port.path] for each in self._inputs(port.role)], port.leading)

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


def many_references(
    ranker: Ranker,
    examples: Mapping[str, Tensor],
    batching: Batching,
    calls: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    original: CapturedModel | None = None,
) -> list[Reference]:
    """The truth for some calls: every request for itself, by the original on its tiled rows.

    `calls`: the numbers of candidates of the requests of each; `original`: see `references`.
    """
    generator = torch.Generator().manual_seed(seed)
    if calls is None:
        calls = DENSE if batching is Batching.DENSE else RAGGED
    return [_reference(ranker, examples, batching, lengths, generator, original) for lengths in calls]


def verify_many(
    ranker: Ranker, original: CapturedModel, requests: int, candidates: Sequence[int], seed: int = 0
) -> Agreement:
    """Compares `ranker.many` with the original: dense calls, a ragged one, and a ragged one in random order.

    Args:
        ranker: the rewritten one.
        original: what it was made of.
        requests: how many there are in a call.
        candidates: of each request; in a ragged call in turn, and the second of three or more requests has none.
        seed: of the drawing.

    An output without rows is one per request, which the original gives for a request with rows alone: there, each has
    some. One that folds rows with something else has no ragged form, so its calls are dense.
    """
    numbers = [n for n in candidates if n] or [1]
    lengths = [numbers[b % len(numbers)] for b in range(requests)]
    outputs = _outputs(ranker)
    counted = [any(isinstance(size, Rows) for size in expr.dims) for expr in outputs]
    folded = any(row_dim(expr) is None for expr, counts in zip(outputs, counted, strict=True) if counts)
    if requests > 2 and all(counted):
        lengths[1] = 0
    agreements: list[Agreement] = []
    for batching in (Batching.DENSE,) if folded else Batching:
        calls = [[n] * requests for n in numbers] if batching is Batching.DENSE else [lengths]
        found = many_references(ranker, original.examples, batching, calls, seed, original)
        agreements += [own.agreement(_scores(ranker, own.request, batching)) for own in found]
    return Agreement.over(agreements)


def _scores(ranker: Ranker, requests: Call, batching: Batching) -> list[Tensor]:
    """What `ranker.many` gives for a call."""
    assert isinstance(requests, Requests)
    tensors = {port: requests.argument(port, batching) for port in many_ports(ranker, batching)}
    context = {port.path: tensor for port, tensor in tensors.items() if port.role == CONTEXT}
    target = {port.path: tensor for port, tensor in tensors.items() if port.role == Role.TARGET.value}
    index = {port.path: tensor for port, tensor in tensors.items() if port.role == INDEX}
    with torch.no_grad():
        return list(ranker.many.scores(context, target, **index))


def _reference(
    ranker: Ranker,
    examples: Mapping[str, Tensor],
    batching: Batching,
    lengths: Sequence[int],
    generator: torch.Generator,
    original: CapturedModel | None,
) -> Reference:
    each = tuple(draw_request(ranker.interface.roles, examples, n, generator) for n in lengths)
    alone = references(ranker, [request for request in each if request.candidates], original)
    rows = sum(lengths)
    order = torch.arange(rows)
    if batching is Batching.REQUEST_OF:
        order = _interleaved(lengths, generator)
    dims = [row_dim(expr) for expr in _outputs(ranker)]

    def together(outputs_of: Callable[[Reference], Sequence[Tensor]]) -> list[Tensor]:
        outputs = zip(dims, zip(*(outputs_of(reference) for reference in alone), strict=True), strict=True)
        if batching is Batching.DENSE:
            return [torch.stack(tensors) for _, tensors in outputs]
        return [
            torch.stack(tensors) if dim is None else torch.cat(tensors, dim).index_select(dim, order)
            for dim, tensors in outputs
        ]

    exact = [reference.rewritten64 for reference in alone]
    return Reference(
        Requests(each, order),
        together(lambda reference: reference.truth),
        together(lambda reference: reference.original),
        None if None in exact else together(lambda reference: reference.rewritten64 or []),
    )


def _interleaved(lengths: Sequence[int], generator: torch.Generator) -> Tensor:
    """Rows of requests in random order, each request's own in theirs, which a model may read: a running sum does."""
    owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths, dtype=torch.int64))
    mixed = owners[torch.randperm(len(owners), generator=generator)]
    return torch.argsort(torch.argsort(mixed, stable=True))


def _outputs(ranker: Ranker) -> list[Expr]:
    results: Any = ranker.stages.whole.graph.output_node().args[0]
    return [node.meta["expr"] for node in results]
