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


def padded_layout(request_of: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """`padded` [B, L] and `slot_of` [R]: a row for each place of a padded layout, and the place of each row.

    A place without a row of its own gets another one of its request's, whose result nobody reads; in an empty request
    it gets any row.
    """
    order = torch.argsort(request_of, stable=True)
    owner = request_of.index_select(0, order)
    first = lengths.cumsum(0) - lengths
    counted = torch.arange(longest, device=request_of.device)
    places = first.unsqueeze(1) + torch.minimum(counted.unsqueeze(0), (lengths - 1).clamp_min(0).unsqueeze(1))
    places = torch.minimum(places, (lengths.sum() - 1).clamp_min(0))
    padded = order.index_select(0, places.flatten()).reshape(places.shape)
    position = torch.arange(request_of.shape[0], device=request_of.device) - first.index_select(0, owner)
    slots = owner * longest + position
    return padded, torch.zeros_like(slots).index_copy(0, order, slots)
