"""Data movement: nothing is computed, so every result is equal to the last bit."""

from __future__ import annotations

from functools import partial

import torch
from laws.harness import Case, Like, law_tests
from torch import Tensor
from torch.nn import functional as F


def both(c: Tensor, t: Tensor) -> Tensor:
    """Context fields, target fields, context fields: [R, 6, 4]."""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


Exact = partial(Case, exact=True)
aten = torch.ops.aten

CASES = [
    Exact("data_movement.same", lambda c, t: F.dropout(both(c, t).contiguous().clone(), 0.5, False)),
    Exact("data_movement.view", lambda c, t: both(c, t).reshape(-1, 24)),
    Exact("data_movement.view", lambda c, t: both(c, t).view(-1, 2, 3, 4).reshape(-1, 3, 8)),
    Exact("data_movement.view", lambda c, t: both(c, t).reshape(-1, 8, 3).reshape(-1, 4, 6)),
    Exact("data_movement.view", lambda c, t: both(c, t).reshape(-1, 4).reshape(-1, 24)),  # rows folded, row-major
    Exact("data_movement.view", lambda c, t: both(c, t).view(-1, 6, 2, 2).permute(2, 0, 1, 3).reshape(-1, 6, 2)),
    Exact("data_movement.view", lambda c, t: c.unsqueeze(1).view_as(c.view(-1, 1, 3, 4)) + t[:, :1].unsqueeze(1)),
    Exact(
        "data_movement.view",
        lambda c, t: both(c, t).permute(1, 0, 2).reshape(-1, 8),
        refuses="rows are cut by a reshape",
    ),
    Exact("data_movement.flatten", lambda c, t: both(c, t).flatten(1)),
    Exact("data_movement.flatten", lambda c, t: both(c, t).flatten()),
    Exact("data_movement.unflatten", lambda c, t: both(c, t).unflatten(1, (3, 2))),
    Exact("data_movement.unflatten", lambda c, t: both(c, t).flatten(1).unflatten(-1, (3, -1))),
    Exact("data_movement.transpose", lambda c, t: both(c, t).transpose(0, 1)),
    Exact("data_movement.transpose", lambda c, t: both(c, t).swapaxes(-1, 1)),
    Exact("data_movement.reverse", lambda c, t: both(c, t)[:, 1].t()),
    Exact("data_movement.reverse", lambda c, t: both(c, t)[:, 1].T),
    Exact("data_movement.matrix_transpose", lambda c, t: both(c, t).mT),
    Exact("data_movement.permute", lambda c, t: both(c, t).permute(-1, 0, 1)),
    Exact("data_movement.movedim", lambda c, t: both(c, t).movedim(2, 0)),
    Exact("data_movement.movedim", lambda c, t: both(c, t).movedim((0, 1), (2, 0))),
    Exact("data_movement.unsqueeze", lambda c, t: both(c, t).unsqueeze(0).unsqueeze(-1)),
    Exact("data_movement.squeeze", lambda c, t: both(c, t)[:, :1].squeeze(1).unsqueeze(-1).squeeze(-1)),
    Exact("data_movement.expand", lambda c, t: c[:, :1].expand(-1, 5, -1) * t[:, :1]),
    Exact("data_movement.expand", lambda c, t: t[:, :1].expand_as(c)),
    Exact("data_movement.expand", lambda c, t, w: w.expand(t.shape[0], 3, 4), given={"w": torch.randn(1, 3, 4)}),
    Exact(
        "data_movement.expand",
        lambda c, t: t.transpose(0, 1)[0].unsqueeze(0).expand(t.shape[0], -1, -1),
        refuses="a second dim of rows",
    ),
    Exact("data_movement.repeat", lambda c, t: both(c, t).repeat(1, 2, 1)),
    Exact("data_movement.repeat", lambda c, t: c.repeat(2, 1, 1)[:, :2] * t.repeat(2, 1, 1)),  # [2 R, ...]
    Exact("data_movement.repeat", lambda c, t, w: w.repeat(t.shape[0], 1), given={"w": torch.randn(1, 4)}),
    Exact("data_movement.repeat", lambda c, t: t.repeat(1, 0, 1), refuses="a dim has no elements"),
    Exact("data_movement.repeat_interleave", lambda c, t: both(c, t).repeat_interleave(3, 1)),
    Exact("data_movement.repeat_interleave", lambda c, t: c[:, :2].repeat_interleave(2, 0) + t.repeat_interleave(2, 0)),
    Exact("data_movement.repeat_interleave", lambda c, t: t.repeat_interleave(2), refuses="over all dims"),
    Exact("data_movement.flip", lambda c, t: both(c, t).flip(1)),
    Exact("data_movement.flip", lambda c, t: both(c, t).flatten(1).flip(-1)),
    Exact("data_movement.flip", lambda c, t: both(c, t).flip(0), refuses="the order of rows"),
    Case("data_movement.full", lambda c, t: torch.full((t.shape[0], 1), 0.1) + c.sum((1, 2)).unsqueeze(1)),
    Case("data_movement.full", lambda c, t: torch.full((t.shape[0],), t.shape[0]), refuses="the number of rows"),
    Case("data_movement.arange", lambda c, t: c * torch.arange(4.0) + torch.arange(1, 5, dtype=t.dtype) * t[:, :1]),
    Case("data_movement.arange", lambda c, t: torch.arange(0, 1, 0.25) * t[:, :1] + c[:, :1]),
    Case("data_movement.arange", lambda c, t: torch.arange(t.shape[0])[:, None] + c[:, 0], refuses="rows are numbered"),
    Case("data_movement.scalar_tensor", lambda c, t: torch.where(c[:, :2] > 0, torch.scalar_tensor(0.1), t)),
    Case("data_movement.zeros", lambda c, t: torch.zeros(t.shape[0], 1) + t.sum((1, 2)).unsqueeze(1)),
    Case("data_movement.ones", lambda c, t: torch.ones(t.shape[0] * 2, 1) - 0.5),
    Exact("data_movement.full_like", lambda c, t: torch.full_like(both(c, t), 3)),
    Exact("data_movement.zeros_like", lambda c, t: torch.zeros_like(both(c, t), dtype=torch.int64)),
    Exact("data_movement.ones_like", lambda c, t: torch.ones_like(t) * c[:, :1]),
    Exact("data_movement.new_zeros", lambda c, t: t.new_zeros(t.shape[0], 2)),
    Exact("data_movement.new_ones", lambda c, t: t.new_ones(2, t.shape[0])),
    Exact("data_movement.new_full", lambda c, t: t.new_full((t.shape[0], 2), 0.3)),
    # a dim of size one and the number of candidates
    Exact("data_movement.squeeze", lambda c, t: c.squeeze(), c=Like((1, 4)), t=Like((1, 4)), from_rows=2),
    Exact("data_movement.squeeze", lambda c, t: (c * t).squeeze(), c=Like((1, 4)), t=Like((1, 4)), from_rows=2),
    Exact(
        "data_movement.squeeze",
        lambda c, t: torch.cat([c[..., :1]], -1).squeeze(-1) + t.squeeze(1)[:, :1],
        c=Like((1, 4)),
        t=Like((1, 4)),
        from_rows=2,
    ),
]  # fmt: skip

test_cases = law_tests(CASES)
