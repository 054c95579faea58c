"""Gates, masks, streams, experts: what one side decides about the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.harness import D_ALL, D_C, D_T, Architecture, D, F, N, architecture_tests, fields

HIDDEN, OUT, UNITS, RANK, EXPERTS, TASKS = 64, 64, 64, 16, 4, 2


class MaskBlock(nn.Module):
    """relu(norm(W (mask * v))), mask = W_2 relu(W_1 x)."""

    def __init__(self, width: int = D_ALL) -> None:
        super().__init__()
        self.mask = nn.Sequential(nn.Linear(D_ALL, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width))
        self.layer = nn.Linear(width, OUT)
        self.norm = nn.LayerNorm(OUT)

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        return self.norm(self.layer(self.mask(x) * v)).relu()


class MaskNet(nn.Module):
    """Blocks one after another, or side by side, over fields that are normalised one by one."""

    def __init__(self, blocks: int, serial: bool) -> None:
        super().__init__()
        self.serial = serial
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(F))
        self.blocks = nn.ModuleList(MaskBlock(OUT if serial and i else D_ALL) for i in range(blocks))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        v = torch.cat([norm(x[:, i]) for i, norm in enumerate(self.norms)], 1)
        x = x.flatten(1)
        if not self.serial:
            return torch.cat([block(x, v) for block in self.blocks], 1)
        for block in self.blocks:
            v = block(x, v)
        return v


class FinalMLP(nn.Module):
    """Two streams of the fields, one gated by the context, one by the target, fused by a bilinear form."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, D_ALL), nn.Sigmoid())
            for size in (D_C, D_T)
        )
        self.streams = nn.ModuleList(
            nn.Sequential(nn.Linear(D_ALL, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS)) for _ in range(2)
        )
        self.fused = nn.Bilinear(UNITS, UNITS, 1)
        self.linear = nn.Linear(2 * UNITS, 1)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target).flatten(1)
        gates = [gate(side.flatten(1)) for gate, side in zip(self.gates, (context, target), strict=True)]
        one, two = (stream(x * gate * 2) for stream, gate in zip(self.streams, gates, strict=True))
        return ((one @ self.fused.weight[0]) * two).sum(1, keepdim=True) + self.linear(torch.cat([one, two], 1))


class Personal(nn.Module):
    """PPNet: every layer's input is scaled by a gate that the context alone decides."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [D_ALL, UNITS]
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(D_C, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, size), nn.Sigmoid()) for size in sizes
        )
        self.layers = nn.ModuleList(nn.Linear(size, UNITS) for size in sizes)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x, prior = fields(context, target).flatten(1), context.flatten(1)
        for gate, layer in zip(self.gates, self.layers, strict=True):
            x = layer(x * gate(prior) * 2).relu()
        return x


class Generated(nn.Module):
    """APG: the core of a low-rank layer is made for each row, from the context or from all fields."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.of_context = size == D_C
        self.core = nn.Linear(size, RANK * RANK)
        self.down, self.up = nn.Linear(D_ALL, RANK, bias=False), nn.Linear(RANK, UNITS)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target).flatten(1)
        core = self.core(context.flatten(1) if self.of_context else x).view(-1, RANK, RANK)
        return self.up(torch.bmm(self.down(x).unsqueeze(1), core).squeeze(1)).relu()


class Experts(nn.Module):
    """MMoE: experts mixed by a gate per task; with experts of each task's own, PLE."""

    def __init__(self, own: int = 0) -> None:
        super().__init__()
        self.own = own
        self.shared = nn.ModuleList(nn.Linear(D_ALL, UNITS) for _ in range(EXPERTS))
        self.private = nn.ModuleList(nn.Linear(D_ALL, UNITS) for _ in range(own * TASKS))
        self.gates = nn.ModuleList(nn.Linear(D_ALL, EXPERTS + own, bias=False) for _ in range(TASKS))
        self.heads = nn.ModuleList(nn.Linear(UNITS, 1) for _ in range(TASKS))

    def forward(self, context: Tensor, target: Tensor) -> list[Tensor]:
        x = fields(context, target).flatten(1)
        shared = [expert(x).relu() for expert in self.shared]
        scores = []
        for task, (gate, head) in enumerate(zip(self.gates, self.heads, strict=True)):
            private = [expert(x).relu() for expert in self.private[task * self.own : (task + 1) * self.own]]
            mixed = torch.stack(shared + private, 1) * gate(x).softmax(1).unsqueeze(2)
            scores.append(head(mixed.sum(1)).sigmoid())
        return scores


class EntireSpace(nn.Module):
    """ESMM: the product of two towers' probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(D_ALL, UNITS), nn.ReLU(), nn.Linear(UNITS, 1)) for _ in range(2)
        )

    def forward(self, context: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        x = fields(context, target).flatten(1)
        click, convert = (tower(x).sigmoid() for tower in self.towers)
        return click, click * convert


def split(units: int) -> int:
    """A layer over all fields: context once."""
    return units * (D_C + N * D_T)


MASK_BLOCK = OUT * D_C * HIDDEN + split(HIDDEN) + N * (HIDDEN * D_T + D_T + D_T * OUT + HIDDEN * OUT)
"""The context half of W (W_2 r * v) is W_c diag(v_c) W_2c, once."""
SECOND_BLOCK = split(HIDDEN) + N * 2 * HIDDEN * OUT
STREAM = N * UNITS * UNITS

ARCHITECTURES = [
    Architecture("MaskNet block", lambda: MaskNet(1, serial=True), MASK_BLOCK),
    Architecture("MaskNet, serial", lambda: MaskNet(2, serial=True), MASK_BLOCK + SECOND_BLOCK),
    Architecture("MaskNet, parallel", lambda: MaskNet(3, serial=False), 3 * MASK_BLOCK),
    Architecture(
        "FinalMLP",
        FinalMLP,
        # the stream that the context gates splits; a gate of the target on the context half does not
        D_C * HIDDEN + HIDDEN * D_ALL + split(UNITS) + STREAM
        + N * (D_T * HIDDEN + HIDDEN * D_ALL + D_ALL * UNITS) + STREAM + STREAM + N * 3 * UNITS,
    ),
    Architecture(
        "PPNet",
        Personal,
        2 * D_C * HIDDEN + HIDDEN * (D_ALL + UNITS) + split(UNITS) + STREAM,
    ),
    Architecture(
        "APG, weights from the context",
        lambda: Generated(D_C),
        D_C * RANK * RANK + split(RANK) + N * (RANK * RANK + RANK * UNITS),
    ),
    Architecture(
        "APG, weights from all fields",
        lambda: Generated(D_ALL),
        split(RANK * RANK) + split(RANK) + N * (RANK * RANK + RANK * UNITS),
    ),
    Architecture(
        "MMoE", Experts, split(EXPERTS * UNITS + TASKS * EXPERTS) + N * TASKS * (EXPERTS * UNITS + UNITS)
    ),
    Architecture(
        "PLE",
        lambda: Experts(own=2),
        split((EXPERTS + 2 * TASKS) * UNITS + TASKS * (EXPERTS + 2)) + N * TASKS * ((EXPERTS + 2) * UNITS + UNITS),
    ),
    Architecture("ESMM", EntireSpace, split(2 * UNITS) + N * 2 * UNITS),
]  # fmt: skip

test_architecture = architecture_tests(ARCHITECTURES)
