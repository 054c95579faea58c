"""No candidates, no scores: under every plan, also where the model leaves a size open."""

import pytest
import torch
from torch import Tensor, nn

from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import POLICIES, Policy, interpret


class Flattened(nn.Module):
    """Reshapes with an open size, which nothing can be divided out of when there are no rows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 1)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = torch.stack([c, t, c * t], 1)  # [R, 3, 4]
        return self.linear(x.view(x.shape[0], -1)).reshape(x.shape[0], -1).squeeze(1)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_open_sizes(policy: Policy) -> None:
    captured, roles = capture_with_roles(Flattened().eval(), {"c": torch.randn(1, 4)}, {"t": torch.randn(5, 4)}, None)
    ranker = build(captured, roles, interpret(captured, roles, 64, policy))
    context = {"c": torch.randn(1, 4)}
    with torch.no_grad():
        assert ranker(context, {"t": torch.randn(0, 4)}).shape == (0,)
        assert ranker(context, {"t": torch.randn(3, 4)}).shape == (3,)
