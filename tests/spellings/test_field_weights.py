"""Products with a weight for each field or pair, which is expanded over the rows."""

from __future__ import annotations

import torch
from spellings.harness import PAIRS, D, F, K, M, N, U, fields, spelled, spelling_tests
from torch import Tensor, nn

FIRST, SECOND = torch.triu_indices(F, F, 1)
BY_FIELD = K * D * U + N * M * D * U
"""A matrix [D, U] for each field, those of context once."""
LEFT_OF_PAIRS = int((FIRST < 3).sum() + ((FIRST > 3) & (FIRST < K + 1)).sum())
"""Pairs of which the left field is of the context: fields 3 and 7 are the target's."""


@spelled("matmul", work=PAIRS * D * D + N * (PAIRS - LEFT_OF_PAIRS) * D * D)
@spelled("folded", work=PAIRS * D * D + N * (PAIRS - LEFT_OF_PAIRS) * D * D)
class MatrixOfPairs(nn.Module):
    """A matrix for each pair: broadcast by `matmul`, or copied for every row, folded, and multiplied in a batch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.randn(PAIRS, D, D))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        left, right = x[:, FIRST], x[:, SECOND]
        if self.how == "matmul":
            mapped = torch.matmul(left.unsqueeze(2), self.weight).squeeze(2)
        else:
            copies = self.weight.expand(x.shape[0], PAIRS, D, D).clone().view(-1, D, D)
            mapped = torch.bmm(left.reshape(-1, 1, D), copies).view(-1, PAIRS, D)
        return mapped.exp() * right


@spelled("matmul", work=K * D * U + N * M * D * U)
@spelled("expand", work=K * D * U + N * M * D * U)
class MixesFields(nn.Module):
    """x^T W, a weight [F, U] on the field axis, broadcast by `matmul` or expanded by hand."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.randn(F, U))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).transpose(1, 2)
        if self.how == "matmul":
            return (x @ self.weight).relu()
        return torch.bmm(x, self.weight.expand(x.shape[0], F, U)).relu()


@spelled("einsum", work=BY_FIELD)
@spelled("bmm", work=BY_FIELD)
class MatrixOfFields(nn.Module):
    """A matrix for each field; the fields first, the rows on axis 1."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.randn(F, D, U))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        if self.how == "einsum":
            return torch.einsum("rfd,fde->rfe", x, self.weight).relu()
        return torch.bmm(x.permute(1, 0, 2), self.weight).permute(1, 0, 2).relu()


@spelled(work=BY_FIELD)
class PositionsOfRows(nn.Module):
    """A table of positions, repeated for every row and added."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.layer = nn.Parameter(torch.randn(F, D)), nn.Linear(D, U)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        return self.layer(x + self.positions.unsqueeze(0).repeat(x.shape[0], 1, 1)).relu()


test_spelling = spelling_tests(__name__)
