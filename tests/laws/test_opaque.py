"""Ops without a law run on tiled rows, unchanged, and say why nothing was saved."""

from __future__ import annotations

import torch
from laws.harness import Case, law_tests
from torch import Tensor, nn


def both(c: Tensor, t: Tensor) -> Tensor:
    return torch.cat([c, t], 1)


CASES = [
    Case(
        "opaque.recurrent",
        lambda c, t, cell: cell(c[:, 0], t[:, 0]),
        refuses="a recurrent cell",
        given={"cell": nn.GRUCell(4, 4)},
    ),
    Case(
        "opaque.recurrent",
        lambda c, t, cell: cell(c, t[:, :1].transpose(0, 1).contiguous())[0],
        refuses="a recurrent cell",
        given={"cell": nn.GRU(4, 4, batch_first=True)},
        from_rows=1,
    ),
    Case("opaque.ordered", lambda c, t: both(c, t).topk(2, 1)[0], refuses="an order among elements"),
    Case(
        "opaque.ordered", lambda c, t: both(c, t).sort(1)[0] + both(c, t).sort(1)[1], refuses="an order among elements"
    ),
    Case(
        "opaque.ordered",
        lambda c, t: both(c, t).max(1)[0] - both(c, t).min(2, keepdim=True)[0][:, :1, 0],
        refuses="an order among elements",
    ),
    Case("reductions.keeping", lambda c, t: (both(c, t).cumsum(0) + c[:, :1]).relu(), refuses="rows are reduced"),
    Case("", lambda c, t: both(c, t).roll(1, 0) * both(c, t), refuses="no rule for"),
    Case("", lambda c, t: torch.arange(t.shape[0], dtype=t.dtype)[:, None] + both(c, t)[:, 0], refuses="no rule for"),
    Case("", lambda c, t: t[:, None, :, 0] - t[None, :, :, 0] + c[:, :2, 0], refuses="rows"),
]  # fmt: skip

test_cases = law_tests(CASES)
