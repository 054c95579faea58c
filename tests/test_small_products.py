"""A batch of small matrices times vectors is written as an elementwise product and a sum; a matrix has its set-up.

A vector of weights is multiplied from the side on which the backend does not pack it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankopt.backends import PROFILES
from rankopt.pipeline import capture_with_roles
from rankopt.plan import interpret
from rankopt.prices import Profile
from rankopt.program import aten
from rankopt.timing import PRODUCTS


class Weighted(nn.Module):
    """Vectors made of a candidate times a matrix made of it: `[R, fields, width] @ [R, width, 1]`."""

    def __init__(self, fields: int, width: int) -> None:
        super().__init__()
        self.shape = fields, width
        self.matrix, self.vector = nn.Linear(8, fields * width), nn.Linear(8, width)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = context + target
        return torch.bmm(self.matrix(x).tanh().unflatten(1, self.shape), self.vector(x).tanh().unsqueeze(2))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize(("fields", "width", "product"), [(3, 16, aten.sum.dim_IntList), (512, 512, aten.bmm.default)])
def test_what_is_cheaper_is_written(profile: Profile, fields: int, width: int, product: Any) -> None:
    model = Weighted(fields, width).eval()
    captured, roles = capture_with_roles(model, {"context": torch.randn(1, 8)}, {"target": torch.randn(20, 8)}, None)
    called = {expr.target for expr in interpret(captured, roles, 512, profile=profile).exprs}
    assert called & {aten.sum.dim_IntList, aten.bmm.default} == {product}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_vector_of_weights_is_multiplied_from_the_side_that_is_not_packed(profile: Profile) -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)).eval()
    captured, roles = capture_with_roles(model, {}, {"input": torch.randn(20, 8)}, None)
    head = [expr for expr in interpret(captured, roles, 512, profile=profile).exprs if expr.target in PRODUCTS][-1]
    assert str(head.shape) == ("(1, N)" if profile.packed else "(N, 1)")
