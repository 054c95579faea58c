"""Norms: moments joined by Chan's formula; batch norm in eval mode is affine."""

from __future__ import annotations

from functools import partial

import torch
from laws.harness import Case, Like, law_tests
from torch import Tensor, nn
from torch.nn import functional as F

from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import FULL, THROUGH_NORMS, interpret
from rankopt.ranker import Ranker
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


def ranker_of(behind: nn.Module, policy: Policy, mean: float = 0.0) -> tuple[Ranker, float]:
    """And its FLOPs per candidate. `mean`: roughly that of what is normalised."""
    torch.manual_seed(0)
    model = Folded(behind).eval()
    model.made.bias.data += mean / 16
    context, target = torch.randn(1, 64, 16) + float(mean != 0), torch.randn(8, 4)
    captured, roles = capture_with_roles(model, {"context": context}, {"target": target}, None)
    plan = interpret(captured, roles, 512, policy)
    return build(captured, roles, plan), plan.flops.each


def flops(behind: nn.Module, policy: Policy) -> float:
    """FLOPs per candidate of a plan that agrees with the model."""
    ranker, each = ranker_of(behind, policy)
    assert ranker.verify(candidates=(1, 60)).identical
    return each


def test_a_linear_layer_is_folded_through_a_norm() -> None:
    """W (C y) = (W C) y: 48 columns where 192 were; the moments need C y all the same."""
    assert flops(nn.Linear(192, 256), THROUGH_NORMS) < 0.5 * flops(nn.Linear(192, 256), FULL)


def test_a_mean_far_from_zero_costs_two_bits_at_most() -> None:
    """It is subtracted behind the product. `optimize` drops a plan with more than twice the original's error."""
    ranker, _ = ranker_of(nn.Linear(192, 256), THROUGH_NORMS, mean=1e5)
    found = ranker.verify(candidates=(1, 60)).agreement
    assert found.error64 is not None
    assert found.error64 < 1e-9
    assert found.rewritten_error < 4 * found.original_error


def test_a_norm_that_nothing_folds_is_evaluated_once() -> None:
    for behind in (nn.Identity(), nn.ReLU()):
        assert flops(behind, THROUGH_NORMS) == flops(behind, FULL)
