"""The ranges of inputs, beside a saved ranker: what requests can be drawn from when the model is not at hand.

Of example rows only the smallest and the largest value at each place are kept, as two rows: enough to draw requests
like them (`rankopt.requests`), in which no id leaves its table, and none of the rows themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def ranges_to_json(examples: Mapping[str, Tensor]) -> dict[str, Any]:
    """The ranges of example rows [R, ...] as plain data; nothing where an input has no order (complex numbers)."""
    if any(rows.is_complex() for rows in examples.values()):
        return {}
    return {name: _encoded(rows) for name, rows in examples.items()}


def examples_of(ranges: Mapping[str, Any]) -> dict[str, Tensor]:
    """Two rows per input, its smallest and its largest values; a scalar is itself."""
    return {name: _decoded(given) for name, given in ranges.items()}


def _encoded(rows: Tensor) -> dict[str, Any]:
    wide = rows.detach().cpu().to(torch.float64 if rows.is_floating_point() else torch.int64)
    bounds = torch.stack([wide.amin(0), wide.amax(0)]) if rows.dim() else wide
    values = [value if math.isfinite(value) else str(value) for value in bounds.reshape(-1).tolist()]
    return {"dtype": str(rows.dtype).removeprefix("torch."), "shape": list(bounds.shape), "values": values}


def _decoded(given: Mapping[str, Any]) -> Tensor:
    dtype = getattr(torch, given["dtype"])
    wide = torch.float64 if dtype.is_floating_point else torch.int64
    values = [float(value) if isinstance(value, str) else value for value in given["values"]]
    return torch.tensor(values, dtype=wide).reshape(given["shape"]).to(dtype)
