"""Pairwise products: factorisation machines, Gram matrices, gathers, products by the Fourier transform."""

from __future__ import annotations

from itertools import combinations

import torch
from laws.harness import Like
from spellings.harness import PAIRS, D, F, K, M, N, U, fields, spelled, spelling_tests
from torch import Tensor, nn

FIRST, SECOND = torch.triu_indices(F, F, 1)
CONTEXT_PAIRS, TARGET_PAIRS = K * (K - 1) // 2, M * (M - 1) // 2
MIXED = PAIRS - CONTEXT_PAIRS
TRIPLES = torch.tensor(list(combinations(range(F), 3)))
CONTEXT_TRIPLES = K * (K - 1) * (K - 2) // 6
GRAM = K * K * D + N * M * F * D
"""A block of context with context once, and one of target with all."""
LAYER_OF_PAIRS = CONTEXT_PAIRS * U + N * MIXED * U


@spelled(inputs={"c": Like((K * D,)), "t": Like((M * D,))}, work=2 * D + N * 2 * D, once=["sum"])
class FlatSumOfSquares(nn.Module):
    """Squares spelled x * x, over fields that are flattened."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([c, t], 1).view(-1, F, D)
        total = x.sum(dim=1)
        return 0.5 * (total * total - (x * x).sum(dim=1)).sum(1, keepdim=True)


@spelled(work=N * 8 * D, once=["sum"])
class PowersOfSums(nn.Module):
    """Third order by Newton's identities: (s^3 - 3 s s_2 + 2 s_3) / 6."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        s, s2, s3 = x.sum(1), x.pow(2).sum(1), x.pow(3).sum(1)
        return ((s.pow(3) - 3 * s * s2 + 2 * s3) / 6).sum(1)


@spelled("masked_select", work=GRAM + LAYER_OF_PAIRS)
@spelled("index", work=GRAM + LAYER_OF_PAIRS)
@spelled("slice", work=GRAM + LAYER_OF_PAIRS)
class Triangle(nn.Module):
    """The triangle of a Gram matrix by a mask, by two indices, by a slice of the batch and two indices; a layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.mask = nn.Parameter(torch.triu(torch.ones(F, F), 1).bool(), requires_grad=False)
        self.layer = nn.Linear(PAIRS, U)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        gram = torch.bmm(x, x.permute(0, 2, 1))
        if self.how == "masked_select":
            products = torch.masked_select(gram, self.mask).view(-1, PAIRS)
        else:
            products = (gram[:] if self.how == "slice" else gram)[:, FIRST, SECOND]
        return self.layer(products).relu()


@spelled(True, once=["mul"])
@spelled(False, once=["mul"])
class GatheredByParameter(nn.Module):
    """Two gathers by rows of an index parameter, by `index_select` or `index`; the products themselves are kept."""

    def __init__(self, select: bool) -> None:
        super().__init__()
        self.select = select
        self.pairs = nn.Parameter(torch.stack([FIRST, SECOND]), requires_grad=False)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        first, second = self.pairs[0], self.pairs[1]
        if self.select:
            return torch.index_select(x, 1, first) * torch.index_select(x, 1, second)
        return x[:, first] * x[:, second]


@spelled(once=["mul"])
class Triples(nn.Module):
    """Third order by three gathers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("triples", TRIPLES.t().contiguous())

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        i, j, k = self.triples
        return (x.index_select(1, i) * x.index_select(1, j) * x.index_select(1, k)).sum(-1).exp()


@spelled(work=CONTEXT_PAIRS * D + N * MIXED * D)
class RepeatedInCat(nn.Module):
    """The same [R, 1, D] listed as often in one `cat` as it has partners: context pairs are runs of operands."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([c, t], 1).split(1, dim=1)
        left = torch.cat([x[i] for i, j in combinations(range(F), 2)], dim=1)
        right = torch.cat([x[j] for i, j in combinations(range(F), 2)], dim=1)
        return torch.sum(left * right, dim=2, keepdim=True).exp()


@spelled(inputs={"c": Like((K, F, D)), "t": Like((M, F, D))}, once=["mul"])
class FieldAwareMasked(nn.Module):
    """Field-aware vectors as a matrix [R, F, F, D], and its triangle by a mask [F, F, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.triu(torch.ones(F, F), 1).bool().unsqueeze(-1))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([c, t], 1)
        products = x * x.transpose(1, 2)
        return torch.masked_select(products, self.mask).view(-1, PAIRS, D).sum(-1).exp()


@spelled("rfft", opaque=dict.fromkeys(["fft_rfft", "_conj", "fft_irfft"], "no rule"))
@spelled("fft", opaque=dict.fromkeys(["fft_fft", "view_as_real", "view_as_complex", "fft_ifft", "real"], "no rule"))
class Correlation(nn.Module):
    """Circular correlation of all pairs by the Fourier transform (HFM)."""

    def __init__(self, transform: str) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        p, q = x[:, FIRST], x[:, SECOND]
        if self.transform == "rfft":
            return torch.fft.irfft(torch.fft.rfft(p).conj() * torch.fft.rfft(q), D).relu()
        p, q = (torch.view_as_real(torch.fft.fft(y)) for y in (p, q))
        real = p[..., 0] * q[..., 0] + p[..., 1] * q[..., 1]
        imaginary = p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]
        return torch.fft.ifft(torch.view_as_complex(torch.stack([real, imaginary], -1))).real.relu()


test_spelling = spelling_tests(__name__)
