"""Products that are linear in the same tensor become one, also where their cofactors span different dims.

A x_n + B_s x_n = (A + B_s) x_n
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rankopt.backends import PROFILES, profile_of
from rankopt.expressions import Stage
from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import interpret
from rankopt.timing import PRODUCTS


class StepLayer(nn.Module):
    """The first layer of DIN's attention unit: [item, step, item - step, item * step] for each step of a history."""

    def __init__(self, steps: int, width: int, units: int) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.layer = nn.Linear(4 * width, units)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        history = context.view(-1, self.steps, self.width)
        item = target.unsqueeze(1).expand(-1, self.steps, -1)
        return self.layer(torch.cat([item, history, item - history, item * history], dim=-1)).relu()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("backend", PROFILES)
def test_an_item_is_multiplied_once_for_all_steps(backend: str, threads: int) -> None:
    torch.manual_seed(0)
    model = StepLayer(20, 32, 32).eval()
    rows = {"context": torch.randn(1, 20 * 32), "target": torch.randn(20, 32)}
    captured, roles = capture_with_roles(model, {"context": rows["context"]}, {"target": rows["target"]}, None)
    plan = interpret(captured, roles, 512, profile=profile_of(backend, threads))
    products = [e for e in plan.exprs if e.target in PRODUCTS and e.stage is Stage.CANDIDATE]
    assert len(products) == 1
    ranker = build(captured, roles, plan)
    expected = model(rows["context"].expand(20, -1), rows["target"])
    torch.testing.assert_close(ranker({"context": rows["context"]}, {"target": rows["target"]}), expected)


def test_few_candidates_are_not_worth_a_sum_of_large_cofactors() -> None:
    """The sum of the cofactors is paid once per request, however few there are."""
    model = StepLayer(200, 64, 64).eval()
    inputs = {"context": torch.randn(1, 200 * 64)}, {"target": torch.randn(20, 64)}
    captured, roles = capture_with_roles(model, *inputs, None)
    composed = {
        candidates: [
            expr
            for expr in interpret(captured, roles, candidates, profile=profile_of("eager", 1)).exprs
            if expr.shape == (200, 64, 64) and expr.stage is Stage.CONTEXT
        ]
        for candidates in (1, 512)
    }
    assert composed[512]
    assert not composed[1]
