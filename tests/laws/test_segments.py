"""Segments of known lengths are constant ranges."""

from __future__ import annotations

from functools import partial

import torch
from laws.harness import Case, law_tests
from torch import Tensor


def both(c: Tensor, t: Tensor) -> Tensor:
    """[R, 6, 4]"""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


def of_rows(lengths: Tensor, x: Tensor) -> Tensor:
    return lengths.repeat(x.shape[0], 1)


def segments(x: Tensor, reduce: str, lengths: Tensor, **options: bool) -> Tensor:
    """The same lengths for every row."""
    return torch.segment_reduce(x, reduce, lengths=lengths.repeat(x.shape[0], 1), axis=1, **options)


def steps_first(x: Tensor, reduce: str, lengths: Tensor) -> Tensor:
    return torch.segment_reduce(x.transpose(0, 1).contiguous(), reduce, lengths=lengths)


equal, unequal = {"n": torch.tensor([2, 2, 2])}, {"n": torch.tensor([1, 3, 2])}
few, empty = {"n": torch.tensor([2, 3])}, {"n": torch.tensor([0, 6])}
Segments = partial(Case, "segments.segment_reduce", from_rows=1)

CASES = [
    Segments(lambda c, t, n: segments(both(c, t), "mean", n), given=equal),
    Segments(lambda c, t, n: segments(both(c, t), "sum", n), once="sum", given=unequal),
    Segments(lambda c, t, n: steps_first(both(c, t), "max", n), once="amax", given=unequal),
    Segments(lambda c, t, n: steps_first(both(c, t), "min", n), given=equal),
    Segments(lambda c, t, n: segments(both(c, t), "sum", n, unsafe=True), refuses="do not cover", given=few),
    Segments(lambda c, t, n: segments(both(c, t), "sum", n), refuses="do not cover", given=empty),
    Segments(
        lambda c, t, n: torch.segment_reduce(both(c, t), "sum", lengths=n + 0 * t[:, :1, 0].long(), axis=1),
        refuses="not known when compiling",
        given=equal,
    ),
    Segments(lambda c, t, n: segments(both(c, t), "prod", n), refuses="not known when compiling", given=equal),
]

test_cases = law_tests(CASES)
