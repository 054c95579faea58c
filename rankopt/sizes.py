"""Symbolic sizes of the captured graph as sizes of the program."""

from __future__ import annotations

from typing import Any

import sympy
import torch

from rankopt.axes import Rows, Size


def symbolic_size(size: Any, rows: sympy.Symbol) -> Size | None:
    """An int as it is, `k * rows` as `Rows(k)`; None for any other expression."""
    if isinstance(size, bool) or not isinstance(size, int | torch.SymInt):
        return None
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression == rows:
        return Rows()
    if expression.is_number:
        return int(expression)
    times = sympy.cancel(expression / rows)
    return Rows(int(times)) if times.is_Integer and times > 0 else None
