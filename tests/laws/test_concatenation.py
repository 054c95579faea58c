"""Concatenation, and taking apart: what is context and what is target stays apart."""

from __future__ import annotations

from functools import partial

import torch
from laws.harness import Case, calls, exprs_of, group_of, law_tests
from torch import Tensor
from torch.nn import functional as F

from rankopt.axes import Rows

ATEN = torch.ops.aten
Exact = partial(Case, exact=True)


def both(c: Tensor, t: Tensor) -> Tensor:
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


CASES = [
    Exact("concatenation.cat", lambda c, t: torch.cat([t, c, t, c[:, 1:]], 1)),
    Exact("concatenation.cat", lambda c, t: torch.cat([torch.cat([c, t], 1), torch.cat([t, c], 1)], 2)),
    Case("concatenation.cat", lambda c, t: torch.cat([c.flatten(1), t.flatten(1)], -1).sigmoid(), once="sigmoid"),
    Exact("concatenation.cat", lambda c, t: torch.cat([c[:, :2], t], 0)),  # rows twice, one after the other
    Exact("concatenation.cat", lambda c, t: torch.cat(both(c, t).split(2, -1), 0).relu()),  # heads on dim 0
    Exact("concatenation.cat", lambda c, t: torch.cat([c, t[:, :0], t], 1)),
    Exact("concatenation.cat", lambda c, t: torch.cat([c[:, :1, :1]], 1).squeeze(1).expand(-1, 3) * t[:, :1, 0]),
    Exact("concatenation.cat", lambda c, t: torch.cat([c.long(), t], 1)),
    Exact(
        "concatenation.cat",
        lambda c, t: torch.cat([c.reshape(-1, 4), t.reshape(-1, 4)], 0),
        refuses="rows would be merged",
    ),
    Exact("concatenation.stack", lambda c, t: torch.stack([c[:, 0], t[:, 1], c[:, 2]], 1)),
    Exact("concatenation.stack", lambda c, t: torch.stack([c[:, 0], t[:, 1]], -1).exp(), once="exp"),
    Exact("concatenation.stack", lambda c, t: torch.stack([c[:, 0], t[:, 1]], 0)),
    Exact("concatenation.pad", lambda c, t: F.pad(both(c, t), (1, 2, 0, 3), value=0.5).relu(), once="relu"),
    Exact("concatenation.pad", lambda c, t: F.pad(both(c, t), (-1, 1, 1, -2))),
    Exact("concatenation.pad", lambda c, t: F.pad(both(c, t), (0, 0, 0, 0, 1, 0)), refuses="rows are padded"),
    Exact("concatenation.pad", lambda c, t: F.pad(both(c, t), (1, 1), "reflect"), refuses="places of", from_rows=1),
    Exact("concatenation.constant_pad", lambda c, t: ATEN.constant_pad_nd(both(c, t), [0, 1, 2, 0], -1.0)),
    Exact("concatenation.constant_pad", lambda c, t: ATEN.constant_pad_nd(t, [0] * 5 + [1]), refuses="rows are padded"),
    Exact("concatenation.split_with_sizes", lambda c, t: torch.cat(both(c, t).split([1, 3, 2], 1)[::-1], 1)),
    Exact("concatenation.split", lambda c, t: torch.cat(both(c, t).flatten(1).split(5, 1)[1:3], 1)),
    Exact(
        "concatenation.split", lambda c, t: torch.stack(both(c, t).repeat(2, 1, 1).split(t.shape[0], 0), 1), from_rows=1
    ),
    Exact(
        "concatenation.split",
        lambda c, t: c.repeat(3, 1, 1).split(2 * t.shape[0], 0)[0],
        refuses="rows are cut apart",
        from_rows=1,
    ),
    Exact("concatenation.chunk", lambda c, t: both(c, t).chunk(4, 1)[1]),
    Exact("concatenation.chunk", lambda c, t: torch.cat(torch.cat(both(c, t).split(2, -1), 0).chunk(2, 0), -1)),
    Exact("concatenation.unbind", lambda c, t: torch.stack(both(c, t).unbind(1)[::-1], 1)),
]  # fmt: skip

test_cases = law_tests(CASES)


def test_neighbours_of_the_context_are_joined_before_they_are_repeated() -> None:
    """cat(c_1, c_2, c_3, t) over rows repeats cat(c_1, c_2, c_3), once."""
    pieces = Exact("concatenation.cat", lambda c, t: torch.cat([c[:, 2], c[:, 0].exp(), c[:, 1].sin(), t[:, 0]], 1))
    for policy in ("full", "context once"):
        repeated = calls(exprs_of(group_of((pieces,)).plans[policy], 0), "expand")
        assert [e.dims for e in repeated] == [(Rows(), 12)]
