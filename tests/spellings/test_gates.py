"""Squeeze and excitation, gates, weights made for each row, experts."""

from __future__ import annotations

import torch
from spellings.harness import D, F, K, M, N, U, fields, spelled, spelling_tests
from torch import Tensor, nn

SIZE, CONTEXT, TARGET = F * D, K * D, M * D
HIDDEN, RANK, EXPERTS = 3, 2, 3
SPLIT = CONTEXT * U + N * TARGET * U


@spelled("mean", work=K * HIDDEN + N * (M * HIDDEN + HIDDEN * F), once=["sum"])
@spelled("segments", work=K * HIDDEN + N * (M * HIDDEN + HIDDEN * F), once=["sum"])
class Squeezed(nn.Module):
    """A number for each field from the means of all; means by `mean`, or as segments of the flat vector."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.down, self.up = nn.Linear(F, HIDDEN, bias=False), nn.Linear(HIDDEN, F, bias=False)
        self.register_buffer("lengths", torch.full((F,), D))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        if self.how == "mean":
            return x * self.up(self.down(x.mean(dim=-1)).relu()).sigmoid().unsqueeze(-1)
        flat = x.flatten(1)
        lengths = self.lengths.repeat(flat.shape[0], 1)
        means = torch.segment_reduce(flat, "mean", lengths=lengths, axis=1)
        gate = self.up(self.down(means).relu()).sigmoid()
        return flat * gate.index_select(1, torch.repeat_interleave(torch.arange(F), self.lengths))


@spelled(work=CONTEXT * SIZE + N * 0)
class OneSidedGate(nn.Module):
    """A gate that reads the context alone, and is detached."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(CONTEXT, SIZE), nn.Sigmoid())

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return fields(c, t).flatten(1) * self.gate(c.detach().flatten(1)) * 2


@spelled(work=CONTEXT * U + N * (TARGET * U + U * SIZE))
class Masked(nn.Module):
    """sigmoid(MLP(x)) * x over all features."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(SIZE, U), nn.ReLU(), nn.Linear(U, SIZE))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1)
        return self.gate(x).sigmoid() * x


@spelled(True, work=CONTEXT * RANK * (RANK + 1) + N * (TARGET + RANK) * RANK + RANK**3)
@spelled(False, work=CONTEXT * RANK * (RANK + 1) + N * (TARGET * RANK * (RANK + 1) + RANK * RANK))
class WeightsOfRows(nn.Module):
    """A matrix made for each row, from the context or from all fields, `view`ed and multiplied in a batch."""

    def __init__(self, of_context: bool) -> None:
        super().__init__()
        self.of_context = of_context
        self.made = nn.Linear(CONTEXT if of_context else SIZE, RANK * RANK)
        self.down = nn.Linear(SIZE, RANK, bias=False)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1)
        matrix = self.made(c.flatten(1) if self.of_context else x).view(-1, RANK, RANK)
        return torch.bmm(self.down(x).unsqueeze(1), matrix).squeeze(1).relu()


@spelled("bmm", work=EXPERTS * (SPLIT + CONTEXT) + N * EXPERTS * (TARGET + U))
@spelled("sum", work=EXPERTS * (SPLIT + CONTEXT) + N * EXPERTS * (TARGET + U))
class Experts(nn.Module):
    """Experts, each with a dim of one, concatenated, and mixed by a gate: by `bmm`, or as a sum of products."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(SIZE, U), nn.ReLU()) for _ in range(EXPERTS))
        self.gate = nn.Linear(SIZE, EXPERTS, bias=False)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1)
        outputs = torch.cat([expert(x).unsqueeze(1) for expert in self.experts], dim=1)
        gate = self.gate(x).softmax(dim=-1)
        if self.how == "bmm":
            return torch.bmm(gate.unsqueeze(1), outputs).squeeze(1)
        return torch.sum(gate.unsqueeze(-1) * outputs, dim=1)


test_spelling = spelling_tests(__name__)
