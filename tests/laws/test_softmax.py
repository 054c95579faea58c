"""Softmax: the exponentials of the context part once per request, its product with the values still split."""

from __future__ import annotations

import math

import torch
from laws.harness import Case, law_tests
from torch import Tensor


def both(c: Tensor, t: Tensor) -> Tensor:
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


def masked(x: Tensor, keep: list[bool]) -> Tensor:
    """Scores [R, 6, 4] of which some fields are masked."""
    return x.masked_fill(~torch.tensor(keep)[:, None], -math.inf)


CONTEXT_MASKED = [False, False, True, True, False, False]
TARGET_MASKED = [True, True, False, False, True, True]

CASES = [
    Case("softmax.softmax", lambda c, t: both(c, t).softmax(1), once="exp"),
    Case("softmax.softmax", lambda c, t: both(c, t).flatten(1).softmax(-1), once="exp"),
    Case("softmax.softmax", lambda c, t: both(c, t).softmax(2), once="softmax"),
    Case("softmax.softmax", lambda c, t: (both(c, t).softmax(1).mT @ both(c, t)), once="exp"),
    Case("softmax.softmax", lambda c, t: (both(c, t) * 300).softmax(1)),
    Case("softmax.softmax", lambda c, t: t[:, :1].expand(-1, 5, -1).softmax(1)),
    Case("softmax.softmax", lambda c, t: masked(both(c, t), CONTEXT_MASKED).softmax(1)),
    Case("softmax.softmax", lambda c, t: masked(both(c, t), TARGET_MASKED).softmax(1)),
    Case("softmax.softmax", lambda c, t: masked(both(c, t), [False] * 6).softmax(1)),  # NaN, as in torch
    Case("softmax.softmax", lambda c, t: both(c, t).where(both(c, t) > 0, -math.inf).softmax(1)),
    Case("softmax.softmax", lambda c, t: (both(c, t) + (1 - (both(c, t) > 0).float()) * -1e9).softmax(1)),
    Case("softmax.softmax", lambda c, t: both(c, t).double().softmax(1, dtype=torch.float32)),
    Case("softmax.softmax", lambda c, t: both(c, t).softmax(0), refuses="softmax over rows"),
    Case("softmax.softmax", lambda c, t: (c[:, :1] * t).unsqueeze(1).softmax(1), refuses="one element"),
    Case("softmax.softmax_decomposed", lambda c, t: torch.ops.aten._softmax(both(c, t), 1, False), once="exp"),
    Case("softmax.safe_softmax", lambda c, t: torch.ops.aten._safe_softmax(both(c, t), 1), once="exp"),
    Case("softmax.safe_softmax", lambda c, t: torch.ops.aten._safe_softmax(masked(both(c, t), [False] * 6), 1)),
    Case("softmax.safe_softmax", lambda c, t: torch.ops.aten._safe_softmax(masked(both(c, t), CONTEXT_MASKED), 1)),
]  # fmt: skip

test_cases = law_tests(CASES)
