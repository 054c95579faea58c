"""Programs that are written call by call, for tests of their prices."""

from __future__ import annotations

import torch

from rankopt.axes import Rows
from rankopt.expressions import Expr, Stage
from rankopt.program import Program


def candidates(program: Program, *sizes: int) -> Expr:
    """An input of the target."""
    return program.input("x", (Rows(), *sizes), torch.float32, Stage.CANDIDATE)
