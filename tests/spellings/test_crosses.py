"""Cross layers: vectors, matrices on either side of the state, mixtures, gates."""

from __future__ import annotations

import torch
from spellings.harness import D, F, K, M, N, U, fields, spelled, spelling_tests
from torch import Tensor, nn

SIZE, CONTEXT, TARGET = F * D, K * D, M * D
SPLIT = CONTEXT * SIZE + N * TARGET * SIZE
"""A square matrix, the columns of context once."""
RANK, EXPERTS = 3, 2


@spelled("mm", work=CONTEXT + N * TARGET)
@spelled("sum", work=CONTEXT + N * TARGET)
@spelled("tensordot", work=CONTEXT + N * TARGET)
class Vector(nn.Module):
    """x0 (w . x) + b + x, its scalar product as `mm`, as a sum of products, or as `tensordot`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.randn(SIZE, 1))
        self.bias = nn.Parameter(torch.randn(SIZE))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1)
        if self.how == "mm":
            product = torch.mm(x, self.weight)
        elif self.how == "sum":
            product = torch.sum(x * self.weight[:, 0], dim=1, keepdim=True)
        else:
            product = torch.tensordot(x.unsqueeze(2), self.weight, dims=([1], [0])).squeeze(2)
        return x * product + self.bias + x


@spelled(work=SPLIT)
class MatrixOnTheRight(nn.Module):
    """x @ W with a weight [d, d], no transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1)
        return x * torch.mm(x, self.weight) + x


@spelled("matmul", work=SPLIT)
@spelled("bmm", work=SPLIT)
class MatrixOnTheLeft(nn.Module):
    """The state as a column: W @ x [R, d, 1], with W expanded over the rows by `matmul` or by hand."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE))
        self.bias = nn.Parameter(torch.randn(SIZE, 1))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1).unsqueeze(2)
        if self.how == "matmul":
            product = torch.matmul(self.weight, x)
        else:
            product = torch.bmm(self.weight.expand(x.shape[0], SIZE, SIZE), x)
        return (x * (product + self.bias) + x).squeeze(2)


@spelled(
    work=EXPERTS * (CONTEXT * (RANK + 1) + N * (TARGET * (RANK + 1) + RANK * RANK + RANK * SIZE) + N * SIZE),
)
class Mixture(nn.Module):
    """Experts U tanh(C tanh(V^T x)) by expanded weights, a gate, and `squeeze()` without an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(EXPERTS, SIZE, RANK))
        self.v = nn.Parameter(torch.randn(EXPERTS, SIZE, RANK))
        self.c = nn.Parameter(torch.randn(EXPERTS, RANK, RANK))
        self.gates = nn.ModuleList(nn.Linear(SIZE, 1, bias=False) for _ in range(EXPERTS))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1).unsqueeze(2)  # [R, d, 1]
        outputs, scores = [], []
        for expert, gate in enumerate(self.gates):
            scores.append(gate(x.squeeze(2)))
            v = torch.tanh(torch.matmul(self.v[expert].t(), x))
            v = torch.tanh(torch.matmul(self.c[expert], v))
            outputs.append((x * torch.matmul(self.u[expert], v)).squeeze())
        mixed = torch.matmul(torch.stack(outputs, 2), torch.stack(scores, 1).softmax(1))  # [R, d, E], [R, E, 1]
        return (mixed + x).squeeze()


@spelled(work=2 * SPLIT)
class Gated(nn.Module):
    """x0 (W x + b) sigmoid(V x)."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.gate = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE, bias=False)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1)
        return torch.mul(x, self.map(x)) * torch.sigmoid(self.gate(x))


@spelled(work=CONTEXT * U + N * TARGET * U)
class TensorDot(nn.Module):
    """A field matrix by a weight [F, D, U], over two axes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(F, D, U))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return torch.tensordot(fields(c, t), self.weight, dims=([1, 2], [0, 1])).relu()


test_spelling = spelling_tests(__name__)
