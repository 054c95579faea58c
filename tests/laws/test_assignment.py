"""Assignments to places are concatenations; those by a mask choose by value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from laws.harness import Case, law_tests
from torch import Tensor

Exact = partial(Case, exact=True)
ATEN = torch.ops.aten


def both(c: Tensor, t: Tensor) -> Tensor:
    """[R, 6, 4]"""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


def assigned(change: Callable[[Tensor, Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """Both, after an assignment in place."""

    def function(c: Tensor, t: Tensor) -> Tensor:
        x = both(c, t)
        change(x, c, t)
        return x

    return function


CASES = [
    Exact("assignment.select_scatter", assigned(lambda x, c, t: x[:, 1].copy_(t[:, 0]))),
    Exact("assignment.select_scatter", assigned(lambda x, c, t: x[:, -1].fill_(2))),
    Exact("assignment.select_scatter", lambda c, t: ATEN.select_scatter(both(c, t), c[0, 0].expand(6, 4), 0, 0),
          refuses="a row is assigned to", from_rows=1),
    Exact("assignment.slice_scatter", assigned(lambda x, c, t: x[:, 1:5:2].copy_(t))),
    Exact("assignment.slice_scatter", assigned(lambda x, c, t: x[:, :, 1:3].mul_(2))),
    Exact("assignment.slice_scatter", lambda c, t: ATEN.slice_scatter(both(c, t), both(t.flip(1), c)[:, :6], 0)),
    Exact("assignment.slice_scatter", lambda c, t: ATEN.slice_scatter(both(c, t), torch.zeros(1, 6, 4), 0, 0, 1),
          refuses="rows are assigned to", from_rows=1),
    Exact("assignment.copy", assigned(lambda x, c, t: x[:, :3].copy_(c[:, :1].double()))),
    Exact("assignment.fill", assigned(lambda x, c, t: x[:, 2:].fill_(0.5))),
    Exact("assignment.fill", assigned(lambda x, c, t: x[:, 2].fill_(torch.tensor(3)))),
    Exact("assignment.index_put", assigned(lambda x, c, t: x.__setitem__(x > 0.5, 0))),
    Exact("assignment.index_put", assigned(lambda x, c, t: x.__setitem__((c[:, :, 0] > 0).all(1), -1.0))),
    Exact("assignment.index_put", assigned(lambda x, c, t: x.__setitem__((slice(None), torch.arange(6) > 3), 7))),
    Exact("assignment.index_put", assigned(lambda x, c, t: x.__setitem__((slice(None), [0, 2]), 7.0)),
          refuses="an assignment by an index"),
    Case("assignment.index_put", lambda c, t: ATEN.index_put(both(c, t), [c[:, 0, 0] > 9], c[0, 0]),
         refuses="as many numbers", from_rows=1),
]  # fmt: skip

test_cases = law_tests(CASES)
