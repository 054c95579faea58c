"""Stacks of mixed blocks: Wukong, RankMixer, DHEN, MLCC, INFNet."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from architectures.harness import Architecture, D, F, K, M, N, architecture_tests, fields

RANK, MADE = 32, 16
SLICE, WIDTH = 2, 2 * F
L, HUBS = 100, 4


class Wukong(nn.Module):
    """One layer: norm([relu(W norm(X X^T Y)); V X] + R X)."""

    def __init__(self) -> None:
        super().__init__()
        self.y = nn.Parameter(torch.randn(F, RANK) / 5)
        self.inner, self.outer = nn.LayerNorm(F * RANK), nn.LayerNorm(D)
        self.layer = nn.Linear(F * RANK, MADE * D)
        self.linear = nn.Parameter(torch.randn(F, MADE) / 5)
        self.residual = nn.Parameter(torch.randn(F, 2 * MADE) / 5)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        products = torch.bmm(x, x.transpose(1, 2) @ self.y).flatten(1)
        made = self.layer(self.inner(products)).relu().unflatten(1, (MADE, D))
        linear, residual = ((x.transpose(1, 2) @ w).transpose(1, 2) for w in (self.linear, self.residual))
        return self.outer(torch.cat([made, linear], 1) + residual)


class RankMixer(nn.Module):
    """Tokens of the fields, one layer: slices exchanged, a norm, a network per token."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((D, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(F, *s) / math.sqrt(s[0])) for s in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.randn(F, s[1])) for s in shapes)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)

    def per_token(self, i: int, x: Tensor) -> Tensor:
        return torch.bmm(x.transpose(0, 1), self.weights[i]).transpose(0, 1) + self.biases[i]

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = self.per_token(0, fields(context, target))
        mixed = x.unflatten(2, (F, SLICE)).transpose(1, 2).flatten(2)
        s = self.norm(mixed + x)
        return self.per_token(2, nn.functional.gelu(self.per_token(1, s)))


class Ensemble(nn.Module):
    """DHEN, one layer: products of fields, a cross and a linear layer over the fields, side by side, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (list(side) for side in torch.triu_indices(F, F, 1).tolist())
        self.dots = nn.Linear(len(self.first), 8 * D)
        self.cross = nn.Linear(F * D, F * D)
        self.linear = nn.Parameter(torch.randn(F, 8) / 5)
        self.shortcut = nn.Parameter(torch.randn(F, F + 16) / 5)
        self.norm = nn.LayerNorm(D)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        dots = self.dots(torch.bmm(x, x.transpose(1, 2))[:, self.first, self.second]).relu().unflatten(1, (8, D))
        crossed = x * self.cross(x.flatten(1)).unflatten(1, (F, D)) + x
        linear, shortcut = ((x.transpose(1, 2) @ w).transpose(1, 2) for w in (self.linear, self.shortcut))
        return self.norm(torch.cat([dots, crossed, linear], 1) + shortcut)


class Crossing(nn.Module):
    """MLCC: a matrix made of all fields, applied to each of them; a layer of its own for each."""

    def __init__(self, heads: int = 4, widths: tuple[int, int] = (4, 1), refined: int = 8) -> None:
        super().__init__()
        self.heads, self.widths = heads, widths
        self.sizes = [D * widths[0], widths[0] * widths[1]]
        self.generator = nn.Parameter(torch.randn(F * D, heads * sum(self.sizes)) / 20)
        self.local = nn.Parameter(torch.randn(F, heads * sum(widths) + D, refined) / 5)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        a, b = (x.flatten(1) @ self.generator).unflatten(1, (self.heads, -1)).split(self.sizes, dim=-1)
        h1 = x.unsqueeze(1) @ a.unflatten(-1, (D, self.widths[0]))
        h2 = h1 @ b.unflatten(-1, self.widths)
        crossed = torch.cat([h1, h2], dim=-1).transpose(1, 2).flatten(2)
        return torch.einsum("rsw,swe->rse", torch.cat([crossed, x], dim=-1), self.local).sigmoid()


class GatedHistory(nn.Module):
    """INFNet: hubs of a candidate ask a history, whose channels the candidate has gated, at any depth."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(D, D, bias=False) for _ in range(3))

    def forward(self, history: Tensor, hubs: Tensor, gate: Tensor) -> Tensor:
        gated = history * gate.sigmoid().unsqueeze(1)
        scores = self.query(hubs) @ self.key(gated).transpose(1, 2) / math.sqrt(D)
        return torch.softmax(scores, -1) @ self.value(gated)


E, Z, REFINED = 16, 20, 8
PRODUCED = 4 * 68
"""MLCC: heads times the numbers of both dynamic layers."""

ARCHITECTURES = [
    Architecture(
        "Wukong layer",
        Wukong,
        # context rows of X (X^T Y) are C (C^T Y_c) once, and C (T^T Y_t). The norm needs them one by one, so that they
        # are not folded into the next layer, although that would do with a quarter less
        2 * K * D * RANK + K * D * MADE + K * D * 2 * MADE
        + N * (2 * M * D * RANK + K * D * RANK + F * RANK * MADE * D + M * D * MADE + M * D * 2 * MADE),
    ),
    Architecture(
        "RankMixer layer",
        RankMixer,
        # tokens of context fields once, the first matrix of each of them once but for the slices of target fields; the
        # norm needs tokens of target fields whole, so that they do not pass through both matrices at once
        K * D * WIDTH + 4 * K * WIDTH**2
        + N * (M * D * WIDTH + 4 * K * M * SLICE * WIDTH + 4 * M * WIDTH**2 + 4 * F * WIDTH**2),
    ),
    Architecture(
        "DHEN layer",
        Ensemble,
        K * K * D + (K * (K - 1) // 2 + K * M * D) * 8 * D + N * (M * F * D + (M * D + M * (M - 1) // 2) * 8 * D)
        + F * D * (K * D + N * M * D) + (K + N * M) * D * (8 + F + 16),
    ),
    Architecture(
        "MLCC block",
        Crossing,
        K * E * PRODUCED + K * E * REFINED + 4 * K * (E * 4 + 4)
        + N * (M * E * PRODUCED + F * 4 * (E * 4 + 4) + M * (Z + E) * REFINED + K * Z * REFINED),
    ),
    Architecture(
        "INFNet, gated history",
        GatedHistory,
        N * (2 * HUBS * L * D + 3 * HUBS * D * D),
        context={"history": (L, D)},
        target={"hubs": (HUBS, D), "gate": (D,)},
    ),
]  # fmt: skip

test_architecture = architecture_tests(ARCHITECTURES)
