"""Factorisation machines and their descendants: second-order interactions of fields."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.harness import (
    D_ALL,
    D_C,
    D_T,
    FEW,
    WHOLE,
    Architecture,
    D,
    F,
    Fields,
    K,
    M,
    N,
    U,
    architecture_tests,
    few,
    fields,
    pairs,
)  # fmt: skip

FIRST, SECOND = (list(side) for side in zip(*pairs(), strict=True))
FLAT = [i * F + j for i, j in pairs()]

SUM_TRICK = 2 * D_C + D + N * (2 * M + 1) * D
"""Sum and sum of squares of the context fields once; those of the target fields, and the square of all, each."""


class SumOfSquares(nn.Module):
    """0.5 sum_d [(sum_f x)^2 - sum_f x^2]"""

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        return 0.5 * (x.sum(1).square() - x.square().sum(1)).sum(1, keepdim=True)


class Gram(nn.Module):
    """The triangle of X X^T, taken by two indices."""

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        return torch.bmm(x, x.transpose(1, 2))[:, FIRST, SECOND]


class Gathered(nn.Module):
    """Two gathers, one product."""

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        return (x[:, FIRST] * x[:, SECOND]).sum(-1)


class Repeated(nn.Module):
    """Every field by every field, repeated in two ways, and the triangle taken from it."""

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        left = x.unsqueeze(2).repeat(1, 1, F, 1).flatten(1, 2)
        right = x.repeat(1, F, 1)
        return (left * right).sum(-1)[:, FLAT]


class Unrolled(nn.Module):
    """A loop over pairs."""

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        return torch.stack([(x[:, i] * x[:, j]).sum(-1) for i, j in pairs(x.shape[1])], 1)


class UnrolledSum(nn.Module):
    """A loop over pairs, added up."""

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        return sum((x[:, i] * x[:, j]).sum(-1) for i, j in pairs(x.shape[1]))  # type: ignore[return-value]


class FieldWeighted(nn.Module):
    """FwFM: a number per pair of fields."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(WHOLE.pairs))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        return ((x[:, FIRST] * x[:, SECOND]).sum(-1) * self.weights).sum(1)


class FieldMatrixed(nn.Module):
    """FmFM: a matrix per pair of fields."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(WHOLE.pairs, D, D) / 4)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        left = torch.einsum("rpd,pde->rpe", x[:, FIRST], self.weights)
        return (left * x[:, SECOND]).sum((1, 2))


class FieldAware(nn.Module):
    """FFM: field i has a vector for every other field j, [R, F, F, D]."""

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([context, target], 1)
        return torch.stack([(x[:, i, j] * x[:, j, i]).sum(-1) for i, j in pairs(x.shape[1])], 1)


class Neural(nn.Module):
    """NFM: the pooled pairs, then a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, U)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        return self.layer(0.5 * (x.sum(1).square() - x.square().sum(1))).relu()


class Attentional(nn.Module):
    """AFM: an attention over the pairs, width 16."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.hidden, self.score = nn.Linear(D, width), nn.Linear(width, 1, bias=False)
        self.out = nn.Linear(D, 1)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        both = x[:, FIRST] * x[:, SECOND]
        weights = self.score(self.hidden(both).relu()).softmax(1)
        return self.out((weights * both).sum(1))


class InnerProducts(nn.Module):
    """PNN, inner: the fields and their products through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D_ALL + WHOLE.pairs, U)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        dots = torch.bmm(x, x.transpose(1, 2))[:, FIRST, SECOND]
        return self.layer(torch.cat([x.flatten(1), dots], 1)).relu()


class OuterProducts(nn.Module):
    """PNN, outer: (sum x)(sum x)^T through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D_ALL + D * D, U)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        pooled = x.sum(1)
        outer = pooled.unsqueeze(2) * pooled.unsqueeze(1)
        return self.layer(torch.cat([x.flatten(1), outer.flatten(1)], 1)).relu()


class OperationAware(nn.Module):
    """ONN: products of field-aware vectors, and the fields, through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear((FEW.k + FEW.m) * D + FEW.pairs, U)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([context, target], 1)
        dots = [(x[:, i, j] * x[:, j, i]).sum(-1, keepdim=True) for i, j in pairs(x.shape[1])]
        return self.layer(torch.cat([x[:, :, 0].flatten(1), *dots], 1)).relu()


AWARE = few(FEW.k + FEW.m, D)


def dots(f: Fields) -> int:
    """Context pairs once, all others each."""
    return f.context_pairs * D + N * (f.mixed_pairs + f.target_pairs) * D


FOLDED = K * M * D * U + N * (M * D * U + WHOLE.target_pairs * (D + U))
"""Products of context and target fields folded into the layer, [M, D, U] once per request; target pairs each."""

ARCHITECTURES = [
    Architecture("FM, sum of squares", SumOfSquares, SUM_TRICK + N * D, products=True),  # and the last sum
    Architecture(
        "FM, loop over pairs added up",
        UnrolledSum,
        # <sum t, sum c>, and target pairs as they are: squares minus squares would cancel digits that the loop keeps
        FEW.context_pairs * D + FEW.k * D + N * ((FEW.m + 1) * D + FEW.target_pairs * D),
        products=True,
        **few(D),
    ),
    Architecture("FM pairs, Gram matrix", Gram, K * K * D + N * M * F * D, products=True),
    Architecture("FM pairs, two gathers", Gathered, dots(WHOLE), products=True),
    Architecture("FM pairs, repeated operands", Repeated, K * K * D + N * M * F * D, products=True),
    Architecture("FM pairs, loop", Unrolled, dots(FEW), products=True, **few(D)),
    Architecture(
        "FwFM",
        FieldWeighted,
        # each pair by its weight; context fields added up for every target field once
        WHOLE.context_pairs * (D + 1) + K * M * D + N * (M * D + WHOLE.target_pairs * (D + 1)),
        products=True,
    ),
    Architecture(
        "FmFM",
        FieldMatrixed,
        # c W c' once; c W once for all pairs with a target field, added up; target pairs each
        (WHOLE.context_pairs + WHOLE.mixed_pairs) * D * D + N * (M * D + WHOLE.target_pairs * (D * D + D)),
        products=True,
    ),
    Architecture("FFM", FieldAware, dots(FEW), products=True, **AWARE),
    Architecture("NFM", Neural, SUM_TRICK + N * D * U, products=True),
    Architecture(
        "AFM",
        Attentional,
        # products, hidden layer and score of context pairs once; all others, and the weighted sum, each
        WHOLE.context_pairs * (D + D * 16 + 16 + D)
        + N * ((WHOLE.mixed_pairs + WHOLE.target_pairs) * (D + D * 16 + 16 + D) + D),
    ),
    Architecture("PNN, inner", InnerProducts, D_C * U + WHOLE.context_pairs * (D + U) + N * D_T * U + FOLDED),
    Architecture(
        "PNN, outer",
        OuterProducts,
        # s_c s_c^T once, [U, D] from s_c once, s_t s_t^T each
        D_C * U + 3 * D * D * U + N * (D_T * U + D * U + D * D * U),
    ),
    Architecture(
        "ONN",
        OperationAware,
        # no vector is shared between pairs, so the fold is of the size of the products
        FEW.k * D * U
        + FEW.context_pairs * (D + U)
        + N * (FEW.m * D * U + (FEW.mixed_pairs + FEW.target_pairs) * (D + U)),
        products=True,
        **AWARE,
    ),
]

test_architecture = architecture_tests(ARCHITECTURES)
