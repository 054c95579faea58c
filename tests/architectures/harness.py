"""Architectures of the field, each a few lines of plain torch, against the closed form of an expert's decomposition.

    Architecture("cross layer", Cross, expert=layers * (d * d_c + N * d * d_t))

`expert` counts multiply-adds of one request of N candidates; rankopt may do 2% more. Every policy's program must give
the scores of the model in float64. Context fields [R, K, D] and target fields [R, M, D] interleave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from rankopt import cost
from rankopt.capture import CapturedModel, capture
from rankopt.float64 import run_float64
from rankopt.pipeline import build
from rankopt.plan import POLICIES, Plan, interpret
from rankopt.program import Stage, aten
from rankopt.requests import Request, tile
from rankopt.selectors import InputRole, Role
from rankopt.verify import placeholders

K, M, D, N, U = 24, 8, 16, 1000, 256
F = K + M
D_C, D_T, D_ALL = K * D, M * D, F * D
PAIRS, CONTEXT_PAIRS, TARGET_PAIRS = (n * (n - 1) // 2 for n in (F, K, M))
MIXED_PAIRS = K * M
TOLERANCE = 1.02
ROW_COUNTS = (1, 3, 50)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """A model, and the multiply-adds of its expert decomposition for one request of N candidates."""

    name: str
    model: Callable[[], nn.Module]
    expert: float
    context: Mapping[str, Shape] = field(default_factory=lambda: {"context": (K, D)})
    target: Mapping[str, Shape] = field(default_factory=lambda: {"target": (M, D)})
    products: bool = False
    """Count elementwise products too, where they are the work: pairs of fields multiplied one by one."""

    @property
    def roles(self) -> tuple[InputRole, ...]:
        found = [InputRole(name, Role.CONTEXT) for name in self.context]
        return (*found, *(InputRole(name, Role.TARGET) for name in self.target))

    def request(self, rows: int, seed: int = 0) -> Request:
        """Random numbers; an input that is called a mask holds zeros and ones, of which the first is one."""
        draw = torch.Generator().manual_seed(seed)

        def tensor(name: str, shape: Shape) -> Tensor:
            numbers = torch.randn(shape, generator=draw)
            if "mask" not in name:
                return numbers
            mask = numbers > -0.5
            mask[:, 0] = True
            return mask

        context = {name: tensor(name, (1, *shape)) for name, shape in self.context.items()}
        return Request(context, {name: tensor(name, (rows, *shape)) for name, shape in self.target.items()})

    def capture(self) -> CapturedModel:
        torch.manual_seed(0)
        return capture(self.model().eval(), (), tile(self.roles, self.request(7)))

    def work(self, plan: Plan) -> float:
        """Multiply-adds of one request of N candidates."""
        found = plan.flops.at(N) / 2
        if self.products:
            found += sum(_products(expr.dims) for expr in plan.exprs if _is_product(expr))
        return found


def _products(shape: tuple[object, ...]) -> int:
    return cost.elements(shape, N)  # type: ignore[arg-type]


def _is_product(expr: object) -> bool:
    """Whether a call multiplies two tensors element by element, in a request."""
    return (
        expr.stage is not Stage.WEIGHT  # type: ignore[attr-defined]
        and expr.target is aten.mul.Tensor  # type: ignore[attr-defined]
    )


def architecture_tests(architectures: Sequence[Architecture]) -> Callable[..., None]:
    """The test of a table of architectures."""

    @pytest.mark.parametrize("architecture", architectures, ids=lambda one: one.name)
    def test_architecture(architecture: Architecture) -> None:
        captured = architecture.capture()
        plans = [interpret(captured, architecture.roles, N, policy) for policy in POLICIES]
        for rows in ROW_COUNTS:
            check_identity(architecture, captured, plans, rows)
        reached = min(architecture.work(plan) for plan in plans if not plan.policy.unchanged)
        assert reached <= TOLERANCE * architecture.expert, (
            f"{reached / 1e6:.2f} against {architecture.expert / 1e6:.2f}"
        )

    return test_architecture


def check_identity(architecture: Architecture, captured: CapturedModel, plans: Sequence[Plan], rows: int) -> None:
    """Every program gives every output of the model, in float64."""
    request = architecture.request(rows, seed=rows)
    truth = run_float64(captured.graph_module, placeholders(captured, tile(architecture.roles, request)))
    for plan in plans:
        ranker = build(captured, architecture.roles, plan)
        found = run_float64(ranker.stages.whole, ranker.arguments(request))
        for result, expected in zip(found, truth, strict=True):
            scale = expected.abs().max().clamp_min(1e-3)
            error = float((result - expected).abs().max() / scale)
            assert error <= 1e-9, f"off by {error:.1e} under '{plan.policy.name}' with {rows} candidates"


# ------------------------------------------------------------------------------------------------------ fields


ORDER = torch.arange(F).reshape(4, F // 4).t().reshape(-1)


def fields(context: Tensor, target: Tensor) -> Tensor:
    """[R, K, D], [R, M, D] -> [R, F, D], interleaved."""
    return torch.cat([context, target], dim=1)[:, ORDER.tolist()]


def pairs() -> list[tuple[int, int]]:
    """All pairs of fields, the smaller number first."""
    return [(i, j) for i in range(F) for j in range(i + 1, F)]
