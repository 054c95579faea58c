"""Architectures of the field, each a few lines of plain torch, against the closed form of an expert's decomposition.

    Architecture("cross layer", Cross, expert=layers * (d * d_c + N * d * d_t))

`expert` counts multiply-adds of one request of N candidates; rankopt may do 2% more, under the best of the policies
that rewrite. (Which of them is served is decided by time.) Every program must give the scores of the model in float64.

Context fields [R, K, D] and target fields [R, M, D] interleave. Graphs of loops over pairs of fields are long, so those
have fewer fields (`FEW`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from rankopt import cost
from rankopt.capture import CapturedModel, capture
from rankopt.expressions import Expr, Stage
from rankopt.float64 import run_float64
from rankopt.pipeline import build
from rankopt.plan import DENSE, FULL, LATE, SHARED, SPLIT, Plan, interpret
from rankopt.program import aten
from rankopt.requests import Request, tile
from rankopt.selectors import InputRole, Role
from rankopt.verify import placeholders


@dataclass(frozen=True, slots=True)
class Fields:
    """Context and target fields, and the pairs among them."""

    k: int
    m: int

    @property
    def pairs(self) -> int:
        return (self.k + self.m) * (self.k + self.m - 1) // 2

    @property
    def context_pairs(self) -> int:
        return self.k * (self.k - 1) // 2

    @property
    def target_pairs(self) -> int:
        return self.m * (self.m - 1) // 2

    @property
    def mixed_pairs(self) -> int:
        return self.k * self.m


WHOLE, FEW = Fields(24, 8), Fields(8, 4)
K, M, D, N, U = WHOLE.k, WHOLE.m, 16, 1000, 256
F = K + M
D_C, D_T, D_ALL = K * D, M * D, F * D
TOLERANCE = 1.02
ROW_COUNTS = (1, 17)

CHOICES = (FULL, LATE, SHARED, SPLIT)
"""The policies under which an expert's form may be reached."""

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
        return plan.flops.at(N) / 2 + (elementwise_products(plan.exprs) if self.products else 0)


def elementwise_products(exprs: Sequence[Expr]) -> int:
    """Products of two tensors, element by element, and sums of anything else: an addition of its own each."""
    requested = [expr for expr in exprs if expr.stage is not Stage.WEIGHT]
    products = sum(cost.elements(expr.dims, N) for expr in requested if expr.target is aten.mul.Tensor)
    sums = [expr.args[0] for expr in requested if expr.target is aten.sum.dim_IntList]
    return products + sum(cost.elements(x.dims, N) for x in sums if x.target is not aten.mul.Tensor)


def architecture_tests(architectures: Sequence[Architecture]) -> Callable[..., None]:
    """The test of a table of architectures."""

    @pytest.mark.parametrize("architecture", architectures, ids=lambda one: one.name)
    def test_architecture(architecture: Architecture) -> None:
        captured = architecture.capture()
        counted = [interpret(captured, architecture.roles, N, policy) for policy in CHOICES]
        best = min(counted, key=architecture.work)
        checked = (best, interpret(captured, architecture.roles, N, DENSE))
        for rows in ROW_COUNTS:
            check_identity(architecture, captured, checked, rows)
        reached = architecture.work(best)
        assert reached <= TOLERANCE * architecture.expert, (
            f"{reached / 1e6:.3f} against {architecture.expert / 1e6:.3f} under '{best.policy.name}'"
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


def fields(context: Tensor, target: Tensor) -> Tensor:
    """[R, K, D], [R, M, D] -> [R, F, D], interleaved."""
    both = torch.cat([context, target], dim=1)
    step = both.shape[1] // 4
    return both[:, [part * step + i for i in range(step) for part in range(4)]]


def pairs(count: int = F) -> list[tuple[int, int]]:
    """All pairs of `count` fields, the smaller number first."""
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def few(*shape: int) -> dict[str, dict[str, Shape]]:
    """Inputs of few fields, each of shape [*shape]."""
    return {"context": {"context": (FEW.k, *shape)}, "target": {"target": (FEW.m, *shape)}}
