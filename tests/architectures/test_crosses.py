"""Cross networks: DCN, its matrix, low-rank and mixture forms, gates, and the split into streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.harness import D_ALL, D_C, D_T, Architecture, N, architecture_tests, fields

RANK, EXPERTS = 32, 4


class CrossVector(nn.Module):
    """DCN: x_0 (w . x) + b + x, three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(D_ALL, 1, bias=False) for _ in range(3))
        self.biases = nn.ParameterList(nn.Parameter(torch.randn(D_ALL)) for _ in range(3))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = x0 = fields(context, target).flatten(1)
        for layer, bias in zip(self.layers, self.biases, strict=True):
            x = x0 * layer(x) + bias + x
        return x


class CrossMatrix(nn.Module):
    """DCN V2: x_0 (W x + b) + x, three layers, and a head of one unit."""

    def __init__(self, head: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(D_ALL, D_ALL) for _ in range(3))
        self.head = nn.Linear(D_ALL, 1) if head else nn.Identity()

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = x0 = fields(context, target).flatten(1)
        for layer in self.layers:
            x = x0 * layer(x) + x
        return self.head(x)


class CrossLowRank(nn.Module):
    """DCN V2 with W = U V^T; the weights stand on the left of x [R, d, 1]."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.v = nn.ParameterList(nn.Parameter(torch.randn(RANK, D_ALL) / 20) for _ in range(layers))
        self.u = nn.ParameterList(nn.Parameter(torch.randn(D_ALL, RANK) / 5) for _ in range(layers))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = x0 = fields(context, target).flatten(1).unsqueeze(2)
        for u, v in zip(self.u, self.v, strict=True):
            x = x0 * (u @ (v @ x)) + x
        return x.squeeze(2)


class CrossMixture(nn.Module):
    """DCN V2's mixture: experts U tanh(C tanh(V^T x)), weights expanded over the rows, and a softmax gate."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(EXPERTS, D_ALL, RANK) / 20)
        self.c = nn.Parameter(torch.randn(EXPERTS, RANK, RANK) / 5)
        self.u = nn.Parameter(torch.randn(EXPERTS, RANK, D_ALL) / 5)
        self.gate = nn.Linear(D_ALL, EXPERTS)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target).flatten(1)
        experts = []
        for i in range(EXPERTS):
            v = self.v[i].t().unsqueeze(0).expand(x.shape[0], RANK, D_ALL)
            low = torch.tanh(torch.bmm(v, x.unsqueeze(2)).squeeze(2))
            experts.append(x * (torch.tanh(low @ self.c[i]) @ self.u[i]))
        gate = torch.softmax(self.gate(x), 1)
        return (torch.stack(experts, 2) @ gate.unsqueeze(2)).squeeze(2) + x


class GatedCross(nn.Module):
    """GDCN, one layer: x_0 (W x + b) sigmoid(G x) + x."""

    def __init__(self) -> None:
        super().__init__()
        self.cross, self.gate = nn.Linear(D_ALL, D_ALL), nn.Linear(D_ALL, D_ALL, bias=False)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target).flatten(1)
        return x * self.cross(x) * torch.sigmoid(self.gate(x)) + x


class Streams(nn.Module):
    """rDCN, three layers: the context crosses itself; the target is crossed with both."""

    def __init__(self) -> None:
        super().__init__()
        self.context = nn.ModuleList(nn.Linear(D_C, D_C) for _ in range(3))
        self.target = nn.ModuleList(nn.Linear(D_C + D_T, D_T) for _ in range(3))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        c = c0 = context.flatten(1)
        t = t0 = target.flatten(1)
        for own, both in zip(self.context, self.target, strict=True):
            c, t = c0 * own(c) + c, t0 * both(torch.cat([c, t], 1)) + t
        return torch.cat([c, t], 1)


SPLIT = D_ALL * D_C + N * D_ALL * D_T
FOLD = D_ALL * D_C * D_T + N * 2 * D_ALL * D_T
"""A second cross layer: the context half of its input is affine in x_t, so W_c diag(x_c) W_ct is one matrix."""

ARCHITECTURES = [
    # x_l = a_l x_0 + sum of biases: w . x_0 of each layer, context part once
    Architecture("DCN", CrossVector, 3 * D_C + N * 3 * (D_ALL + D_T)),
    Architecture("DCN V2, three layers", CrossMatrix, SPLIT + FOLD + D_ALL * D_ALL * (N - 1)),
    Architecture(
        "DCN V2, three layers into a head of one unit",
        lambda: CrossMatrix(head=True),
        SPLIT + FOLD + D_C * D_ALL + N * (D_ALL + D_T * D_ALL + D_T),
    ),
    Architecture(
        "DCN V2, low rank",
        CrossLowRank,
        # V^T x: context part once in layer 0, the affine fold in layer 1; U for every candidate
        RANK * D_C + N * RANK * (D_T + D_ALL) + N * RANK * D_ALL * 2,
    ),
    Architecture(
        "DCN V2, mixture",
        CrossMixture,
        EXPERTS * (D_C * RANK + D_C) + N * EXPERTS * (D_T * RANK + RANK * RANK + RANK * D_ALL + D_T + D_ALL),
    ),
    Architecture("GDCN, layer 0", GatedCross, 2 * SPLIT),
    Architecture("rDCN, three layers", Streams, 3 * (D_C * D_C + D_T * D_C + N * D_T * D_T)),
]

test_architecture = architecture_tests(ARCHITECTURES)
