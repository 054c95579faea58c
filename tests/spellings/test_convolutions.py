"""Compressed interactions as convolutions of width one, and convolutions across fields."""

from __future__ import annotations

import torch
from spellings.harness import D, F, K, N, U, fields, spelled, spelling_tests
from torch import Tensor, nn

COMPRESSED = K * K * D * U + N * (F * F - K * K) * D * U
"""A layer over pairs of fields, those of context once."""


@spelled("conv1d", work=COMPRESSED)
@spelled("conv2d", work=COMPRESSED)
class Compressed(nn.Module):
    """CIN: the outer products [R, F * F, D], through a convolution of width one over the pairs."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.map = nn.Conv1d(F * F, U, 1) if how == "conv1d" else nn.Conv2d(F * F, U, (1, 1))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        outer = torch.einsum("bhd,bmd->bhmd", x, x).reshape(-1, F * F, D)
        if self.how == "conv1d":
            return self.map(outer).relu()
        return self.map(outer.unsqueeze(-1)).squeeze(-1).relu()


@spelled(work=K * D * U + N * (F - K) * D * U)
class OverFields(nn.Module):
    """A layer for each field, as a convolution of width one over D."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv1d(D, U, 1, bias=False)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return self.map(fields(c, t).transpose(1, 2)).transpose(1, 2).relu()


@spelled(
    opaque={
        "conv2d": "wider than one mixes neighbours",
        "topk": "an order among",
        "sort": "an order among",
        "gather": "index differs",
    }
)
class AcrossFields(nn.Module):
    """CCPM: padding, a convolution across neighbouring fields, the k largest in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, (3, 1))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = nn.functional.pad(fields(c, t).unsqueeze(1), (0, 0, 1, 1))
        x = self.convolution(x)  # [R, 3, F, D]
        places = x.topk(4, dim=2)[1].sort(dim=2)[0]
        return x.gather(2, places).tanh().flatten(1)


@spelled(opaque={"conv2d": "wider than one mixes neighbours", "max_pool2d": "neighbours of different ranks"})
class PooledAcrossFields(nn.Module):
    """FGCNN: a convolution across fields, and maxima of neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, (3, 1), padding=(1, 0))
        self.layer = nn.Linear(3 * (F // 2) * D, U)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.convolution(fields(c, t).unsqueeze(1)).tanh(), (2, 1))
        return self.layer(x.flatten(1)).relu()


@spelled(work=(K + 1) * D * U + N * (F - K) * D * U)
class Padded(nn.Module):
    """Fields padded to a fixed number of them by constants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear((F + 2) * D, U)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return self.layer(nn.functional.pad(fields(c, t), (0, 0, 1, 1), value=0.5).flatten(1)).relu()


test_spelling = spelling_tests(__name__)
