"""Reductions: the context part once per request; along rows, never."""

from __future__ import annotations

import torch
from laws.harness import Case, law_tests
from torch import Tensor
from torch.nn import functional as F


def both(c: Tensor, t: Tensor) -> Tensor:
    """[R, 6, 4]"""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


def pair(c: Tensor, t: Tensor) -> Tensor:
    """[R, 3, 2, 4]: a product that is never built."""
    return c.unsqueeze(2) * t.unsqueeze(1)


CASES = [
    Case("reductions.sum_", lambda c, t: both(c, t).sum(1), once="sum"),
    Case("reductions.sum_", lambda c, t: both(c, t).sum((1, 2), keepdim=True)),
    Case("reductions.sum_", lambda c, t: pair(c, t).sum(-1), never="sum"),
    Case("reductions.sum_", lambda c, t: both(c, t).sum(1).pow(2) - both(c, t).pow(2).sum(1)),  # FM
    Case("reductions.sum_", lambda c, t: (c > 0).sum(1) + (t > 0).sum(1), once="sum"),
    Case("reductions.sum_", lambda c, t: t[:, :1].expand(-1, 5, -1).sum(1)),
    Case("reductions.sum_", lambda c, t: both(c, t).sum(0), refuses="rows are reduced"),
    Case("reductions.sum_", lambda c, t: both(c, t).sum(), refuses="rows are reduced"),
    Case("reductions.mean", lambda c, t: both(c, t).mean(1)),
    Case("reductions.mean", lambda c, t: pair(c, t).mean((1, 3))),
    Case("reductions.mean", lambda c, t: both(c, t).mean((1, 2))),
    Case("reductions.mean", lambda c, t: both(c, t)[:, :0].mean(1), refuses="a dim has no elements"),
    Case("reductions.var", lambda c, t: both(c, t).var(1, correction=0)),
    Case("reductions.var", lambda c, t: both(c, t).var((1, 2), correction=2, keepdim=True)),
    Case("reductions.var", lambda c, t: both(c, t)[:, :1].var(1, correction=1), refuses="too few elements"),
    Case("reductions.var_unbiased", lambda c, t: (1000 + both(c, t)).var(-1, unbiased=False) + both(c, t).var(2)),
    Case("reductions.var_unbiased", lambda c, t: both(c, t).var(0), refuses="rows are reduced", from_rows=2),
    Case("reductions.var_unbiased", lambda c, t: both(c, t).var(False), refuses="rows are reduced", from_rows=1),
    Case("reductions.std", lambda c, t: both(c, t).std(1, correction=0)),
    Case("reductions.std_unbiased", lambda c, t: both(c, t).std(1, True, True)),
    Case("reductions.amax", lambda c, t: both(c, t).amax(1), once="amax"),
    Case("reductions.amax", lambda c, t: both(c, t).flatten(1).amax(-1, keepdim=True)),
    Case("reductions.amin", lambda c, t: both(c, t).amin((1, 2)), once="amin"),
    Case("reductions.reducing", lambda c, t: both(c, t).argmax(1) + both(c, t).argmin(1)),
    Case("reductions.reducing", lambda c, t: both(c, t).flatten(1).prod(1)),
    Case("reductions.reducing", lambda c, t: (both(c, t) > 0).any(1) & (both(c, t) > -1).all(1)),
    Case("reductions.reducing", lambda c, t: c.argmax(2).unsqueeze(1) + t.argmax(2).unsqueeze(2), once="argmax"),
    Case("reductions.reducing", lambda c, t: both(c, t).argmax(0), refuses="rows are reduced", from_rows=1),
    Case("reductions.keeping", lambda c, t: both(c, t).cumsum(1)),
    Case("reductions.keeping", lambda c, t: F.log_softmax(both(c, t).flatten(1), -1)),
    Case("reductions.keeping", lambda c, t: c.cumsum(1)[:, :2] * t.logcumsumexp(2), once="cumsum"),
    Case("reductions.keeping", lambda c, t: (c[:, :2] * t).cumsum(0), refuses="rows are reduced"),
]  # fmt: skip

test_cases = law_tests(CASES)
