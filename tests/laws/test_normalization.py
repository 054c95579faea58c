"""Norms: moments joined by Chan's formula; batch norm in eval mode is affine."""

from __future__ import annotations

from functools import partial

import torch
from laws.harness import Case, Like, law_tests
from torch import Tensor, nn
from torch.nn import functional as F

from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import FULL, NORMS, interpret
from rankopt.workspace import Policy


def both(c: Tensor, t: Tensor) -> Tensor:
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


def layer_norm(*shape: int) -> dict[str, nn.Module]:
    norm = nn.LayerNorm(shape)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return {"norm": norm}


def batch_norm(size: int, **options: bool) -> dict[str, nn.Module]:
    norm = nn.BatchNorm1d(size, **options)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
    return {"norm": norm}


NATIVE = torch.ops.aten.native_layer_norm
Layer = partial(Case, "normalization.layer_norm")
Batch = partial(Case, "normalization.batch_norm")

CASES = [
    Layer(lambda c, t, norm: norm(both(c, t).flatten(1)), once="mean", given=layer_norm(24)),
    Layer(lambda c, t, norm: norm(both(c, t)), once="layer_norm", given=layer_norm(4)),
    Layer(lambda c, t, norm: norm(both(c, t)), once="mean", given=layer_norm(6, 4)),
    Layer(lambda c, t: F.layer_norm(both(c, t).flatten(1), (24,)), once="mean"),
    Layer(lambda c, t, norm: F.layer_norm(both(c, t).flatten(1), (24,), norm.weight), given=layer_norm(24)),
    Layer(lambda c, t, norm, w: w(norm(both(c, t).flatten(1))), given=layer_norm(24) | {"w": nn.Linear(24, 5)}),
    Layer(lambda c, t, norm: norm(both(c, t).flatten(1) + 1000), given=layer_norm(24)),
    Layer(lambda c, t: F.layer_norm(t[:, :1].expand(-1, 5, -1).flatten(1), (20,))),
    Layer(lambda c, t: F.layer_norm((c[:, :1] * t).sum(-1, keepdim=True), (1,)), refuses="a norm over one element"),
    Case(
        "normalization.layer_norm_decomposed",
        lambda c, t, norm: NATIVE(both(c, t).flatten(1), [24], norm.weight, norm.bias, 1e-5)[0],
        once="mean",
        given=layer_norm(24),
    ),
    Batch(lambda c, t, norm: norm(both(c, t).flatten(1)).relu(), once="relu", given=batch_norm(24)),
    Batch(lambda c, t, norm: norm(both(c, t)), given=batch_norm(6)),  # fields are channels
    Batch(lambda c, t, norm: norm(both(c, t).reshape(-1, 4)).view(-1, 6, 4).relu(), once="relu", given=batch_norm(4)),
    Batch(lambda c, t, norm: norm(both(c, t).flatten(1)), given=batch_norm(24, affine=False)),
    Batch(lambda c, t, norm: norm(t[:, 0] * c[:, 0]), given=batch_norm(4), c=Like((3, 4)), t=Like((2, 4))),
    Batch(
        lambda c, t: F.batch_norm(t[:, 0] * c[:, 0], None, None, training=True),
        refuses="batch norm in training mode",
        from_rows=2,
    ),
]  # fmt: skip

test_cases = law_tests(CASES)


class Folded(nn.Module):
    """Products of the context and something smaller that is made of a candidate, a norm, and what is behind it."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.made, self.norm, self.behind = nn.Linear(4, 48), layer_norm(192)["norm"], behind

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        products = torch.bmm(context, self.made(target).unflatten(1, (16, 3)))  # [R, 64, 3]
        return self.behind(self.norm(products.flatten(1)))


def flops(behind: nn.Module, policy: Policy) -> float:
    torch.manual_seed(0)
    rows = {"context": torch.randn(1, 64, 16), "target": torch.randn(8, 4)}
    model = Folded(behind).eval()
    captured, roles = capture_with_roles(model, {"context": rows["context"]}, {"target": rows["target"]}, None)
    plan = interpret(captured, roles, 512, policy)
    assert build(captured, roles, plan).verify(candidates=(1, 60)).identical
    return plan.flops.each


def test_a_linear_layer_is_folded_through_a_norm() -> None:
    """W (C y) = (W C) y: 48 columns where 192 were; the moments need C y all the same."""
    assert flops(nn.Linear(192, 256), NORMS) < 0.5 * flops(nn.Linear(192, 256), FULL)


def test_a_norm_that_nothing_folds_is_evaluated_once() -> None:
    for behind in (nn.Identity(), nn.ReLU()):
        assert flops(behind, NORMS) == flops(behind, FULL)
