"""Segments of a dim, reduced one by one: `segment_reduce` by lengths that are known when compiling.

segments(cat(c, t)) = the reductions of constant ranges
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rankopt.axes import Rows
from rankopt.passes.concatenation import stack
from rankopt.passes.data_movement import unflatten
from rankopt.passes.gather import take
from rankopt.passes.reductions import amax, amin, mean, sum_
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Sum, Value
from rankopt.workspace import Workspace

REDUCTIONS: dict[str, Any] = {"sum": sum_, "mean": mean, "max": amax, "min": amin}


@rule(aten.segment_reduce.default, law="segment_reduce(x, n) = reduce(x[0:n_0]), reduce(x[n_0:n_0 + n_1]), ...")
def segment_reduce(
    w: Workspace,
    x: Value,
    reduce: str,
    *,
    lengths: Value | None = None,
    axis: int = 0,
    initial: float | None = None,
    **options: Any,
) -> Value:
    """`[.., l, ..] -> [.., s, ..]` for s segments of dim `axis`, which together cover it."""
    at = x.dim(axis)
    size = x.shape[at]
    known = None if lengths is None else _same_for_all(w, lengths)
    if reduce not in REDUCTIONS or known is None or initial is not None or options.keys() - {"unsafe"}:
        raise Refusal("segments whose lengths are not known when compiling")
    if isinstance(size, Rows):
        raise Refusal("segments of rows")
    if int(known.sum()) != size or int(known.min()) < 1:
        raise Refusal("segments that are empty, or do not cover the dim")
    operation = REDUCTIONS[reduce]
    if len(set(known.tolist())) == 1:
        return operation(w, unflatten(w, x, at, [len(known), int(known[0])]), at + 1)  # type: ignore[no-any-return]
    ends = np.cumsum(known.numpy())
    ranges = [np.arange(end - length, end) for end, length in zip(ends, known.tolist(), strict=True)]
    return stack(w, [operation(w, take(w, x, at, places), at) for places in ranges], at)


def _same_for_all(w: Workspace, lengths: Value) -> torch.Tensor | None:
    """Lengths [.., s] that are integers known when compiling, and vary along the last dim alone."""
    operand = lengths.node.operand if isinstance(lengths.node, Sum) else None
    if operand is None or operand.axes != lengths.groups[-1]:
        return None
    return w.program.literal(operand.tensor)
