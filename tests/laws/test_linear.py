"""Linear layers split by rank, in whatever order the fields stand."""

from __future__ import annotations

import torch
from laws.harness import Case, calls, exprs_of, group_of, law_tests
from torch import Tensor, nn
from torch.nn import functional as F

from rankopt.axes import Rows
from rankopt.expressions import Stage


def flat(c: Tensor, t: Tensor) -> Tensor:
    """Interleaved: [R, 24]."""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1).flatten(1)


def fields(c: Tensor, t: Tensor) -> Tensor:
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


wide = {"w": nn.Linear(24, 5)}
narrow = {"w": nn.Linear(4, 5)}
conv = {"w": nn.Conv1d(6, 5, 1)}
grouped = nn.Conv1d(6, 6, 1, groups=2)
WIDE = "wider than one"


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool = False) -> Tensor:
    return torch.ops.aten.convolution(x, weight, bias, [1], [0], [1], transposed, [0], 1)


CASES = [
    Case("linear.linear", lambda c, t, w: w(flat(c, t)), given=wide),
    Case("linear.linear", lambda c, t, w: w(fields(c, t)).relu(), once="relu", given=narrow),
    Case(
        "linear.linear", lambda c, t, w: w(fields(c, t).reshape(-1, 4)).view(-1, 6, 5).relu(), once="relu", given=narrow
    ),
    Case("linear.linear", lambda c, t, w: F.linear(c.flatten(1).repeat(1, 2) * 2, w.weight), once="mm", given=wide),
    Case("linear.linear", lambda c, t, w: w(fields(c, t).permute(1, 0, 2)), given=narrow),  # rows are not dim 0
    Case("linear.linear", lambda c, t, w: w(c.unsqueeze(1) * t.unsqueeze(2)), given=narrow),
    Case("linear.linear", lambda c, t, w: F.linear(t[:, 0], w[0]), given={"w": torch.randn(1, 3, 4)}),
    Case("linear.addmm", lambda c, t, w: torch.addmm(w.bias, flat(c, t), w.weight.t()), given=wide),
    Case(
        "linear.addmm", lambda c, t, w: torch.addmm(w.bias, flat(c, t), w.weight.t(), beta=0.5, alpha=2.0), given=wide
    ),
    Case("linear.addmm", lambda c, t: torch.baddbmm(c, c, t.mT @ t)),
    Case("linear.convolution", lambda c, t, w: w(fields(c, t)), given=conv),
    Case("linear.convolution", lambda c, t, w: F.conv1d(fields(c, t), w.weight, padding="same"), given=conv),
    Case("linear.convolution", lambda c, t, w: w(fields(c, t).unsqueeze(2)), given={"w": nn.Conv2d(6, 5, (1, 1))}),
    Case("linear.convolution", lambda c, t, w: w(fields(c, t)), refuses=WIDE, given={"w": nn.Conv1d(6, 5, 2)}),
    Case("linear.convolution", lambda c, t, w: w(fields(c, t)), refuses=WIDE, given={"w": nn.Conv1d(6, 6, 1, 2)}),
    Case("linear.convolution", lambda c, t, w: w(fields(c, t)), refuses=WIDE, given={"w": nn.Conv1d(6, 6, 1, 1, 1)}),
    Case("linear.convolution", lambda c, t, w: w(fields(c, t)), refuses=WIDE, given={"w": grouped}),
    Case("linear.convolution_decomposed", lambda c, t, w: convolution(fields(c, t), w.weight, w.bias), given=conv),
    Case(
        "linear.convolution_decomposed",
        lambda c, t, w: convolution(fields(c, t), w.weight.mT.reshape(6, 5, 1), None, True),
        refuses="transposed",
        given=conv,
    ),
]  # fmt: skip

test_cases = law_tests(CASES)


def test_the_context_half_of_a_layer_is_one_product_of_one_row() -> None:
    """MaRI: W_c x_c + b is computed once, and added to W_t x_t."""
    case = Case("linear.linear", lambda c, t, w: w(flat(c, t)), given={"w": nn.Linear(24, 64)})
    exprs = exprs_of(group_of((case,)).plans["full"], 0)
    products = [e for name in ("mm", "addmm") for e in calls(exprs, name)]
    shapes = {(e.stage, e.args[-2].dims) for e in products}
    assert shapes == {(Stage.CONTEXT, (1, 16)), (Stage.CANDIDATE, (Rows(), 8))}
    assert not calls([e for e in exprs if e.stage is Stage.CANDIDATE], "cat")
