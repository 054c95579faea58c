"""Which rows belong to which request, and the index tensors that a ragged graph takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Some requests of a batch: their numbers [b], their rows [r] in the order of the batch, and whose each row is."""

    requests: Tensor
    rows: Tensor
    batch: Batch


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of several requests in any order: `request_of` [R] says of which each is, `lengths` how many each has."""

    request_of: Tensor
    lengths: tuple[int, ...]

    @property
    def requests(self) -> int:
        """The number of requests, those without a row included."""
        return len(self.lengths)

    @property
    def padded_rows(self) -> int:
        """How many rows the padded layout has."""
        return self.requests * max(self.lengths, default=0)

    def layout(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments `forms.INDEX` of a ragged graph."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64, device=self.request_of.device)
        return (self.request_of, *padded_layout(self.request_of, lengths, max(self.lengths, default=0)))

    def groups(self) -> Iterator[Group]:
        """Requests of similar length together, the longest at most twice the shortest; empty ones are in none.

        Padding at most doubles the rows of a group, and there are no more groups than a length has binary digits.
        """
        kinds = torch.tensor([length.bit_length() for length in self.lengths], device=self.request_of.device)
        for kind in sorted({length.bit_length() for length in self.lengths if length}):
            yield self.part((kinds == kind).nonzero().flatten())

    def part(self, requests: Tensor) -> Group:
        """The batch of some requests."""
        number = torch.full((self.requests,), -1, dtype=torch.int64, device=self.request_of.device)
        number[requests] = torch.arange(len(requests), device=self.request_of.device)
        renumbered = number[self.request_of]
        rows = (renumbered >= 0).nonzero().flatten()
        lengths = tuple(self.lengths[i] for i in requests.tolist())
        return Group(requests, rows, Batch(renumbered[rows], lengths))


def owners(lengths: Tensor, rows: int) -> Tensor:
    """The request of each of `rows` rows that come request after request: lengths [B] -> [R]."""
    first = lengths.cumsum(0) - lengths
    started = lengths.new_zeros(rows + 1).scatter_add(0, first, torch.ones_like(first))
    return started.cumsum(0).narrow(0, 0, rows) - 1


def row_counts(request_of: Tensor, requests: int) -> Tensor:
    """How many rows each request has: request_of [R] -> [B]."""
    return request_of.new_zeros(requests).scatter_add(0, request_of, torch.ones_like(request_of))


def longest(lengths: Tensor) -> Tensor:
    """The number of rows of the longest request, a tensor without dims; 0 where there is none."""
    return torch.cat([lengths, lengths.new_zeros(1)]).amax(0)


def padded_layout(request_of: Tensor, lengths: Tensor, longest: int, grouped: bool = False) -> tuple[Tensor, Tensor]:
    """`padded` [B, L] and `slot_of` [R]: a row for each place of a padded layout, and the place of each row.

    A place without a row of its own gets another one of its request's, whose result nobody reads; in an empty request
    it gets any row. `grouped`: the rows come request after request, and need no sorting.
    """
    first = lengths.cumsum(0) - lengths
    counted = torch.arange(longest, device=request_of.device)
    places = first.unsqueeze(1) + torch.minimum(counted.unsqueeze(0), (lengths - 1).clamp_min(0).unsqueeze(1))
    places = torch.minimum(places, (lengths.sum() - 1).clamp_min(0))
    position = torch.arange(request_of.shape[0], device=request_of.device)
    if grouped:
        return places, request_of * longest + position - first.index_select(0, request_of)
    owner, order = torch.sort(request_of)
    slots = owner * longest + position - first.index_select(0, owner)
    padded = order.index_select(0, places.flatten()).reshape(places.shape)
    return padded, torch.zeros_like(slots).scatter(0, order, slots)
