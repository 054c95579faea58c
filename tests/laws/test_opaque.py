"""Ops without a law run on tiled rows, unchanged, and say why nothing was saved."""

from __future__ import annotations

import torch
from laws.harness import Case, law_tests
from torch import Tensor


def both(c: Tensor, t: Tensor) -> Tensor:
    return torch.cat([c, t], 1)


CASES = [
    Case("reductions.keeping", lambda c, t: (both(c, t).cumsum(0) + c[:, :1]).relu(), refuses="rows are reduced"),
    Case("", lambda c, t: both(c, t).roll(1, 0) * both(c, t), refuses="no rule for"),
    Case("", lambda c, t: torch.view_as_complex(both(c, t).unflatten(2, (2, 2))).real, refuses="no rule for"),
    Case("", lambda c, t: t[:, None, :, 0] - t[None, :, :, 0] + c[:, :2, 0], refuses="rows"),
]  # fmt: skip

test_cases = law_tests(CASES)
