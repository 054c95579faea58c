"""Compressed and bilinear interactions: CIN, FiBiNET."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.harness import (
    CONTEXT_PAIRS,
    MIXED_PAIRS,
    PAIRS,
    TARGET_PAIRS,
    Architecture,
    D,
    F,
    K,
    M,
    N,
    U,
    architecture_tests,
    fields,
    pairs,
)  # fmt: skip

H = 128
SQUEEZED = F // 3
FIRST, SECOND = (list(side) for side in zip(*pairs(), strict=True))


class Compressed(nn.Module):
    """CIN: X^l[h] = sum_ij W[h, i, j] X^(l-1)[i] X^0[j], a convolution of width one; all layers are summed over D."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        widths = [F, *[H] * layers]
        self.maps = nn.ModuleList(nn.Conv1d(F * w, H, 1) for w in widths[:-1])

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = x0 = fields(context, target)
        pooled = []
        for layer in self.maps:
            outer = torch.einsum("rid,rjd->rijd", x, x0)
            x = layer(outer.flatten(1, 2))
            pooled.append(x.sum(-1))
        return torch.cat(pooled, 1)


class SecondCompressed(nn.Module):
    """The second layer of CIN alone: the maps of the first are given for every candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv1d(F * H, H, 1)

    def forward(self, context: Tensor, target: Tensor, maps: Tensor) -> Tensor:
        outer = torch.einsum("rid,rjd->rijd", maps, fields(context, target))
        return self.map(outer.flatten(1, 2)).relu()


class Bilinear(nn.Module):
    """FiBiNET's raw branch: (x_i W_ij) * x_j for every pair, through a layer."""

    def __init__(self, kind: str = "interaction") -> None:
        super().__init__()
        count = {"interaction": PAIRS, "each": F, "all": 1}[kind]
        self.maps = nn.ModuleList(nn.Linear(D, D, bias=False) for _ in range(count))
        self.number = {"interaction": range(PAIRS), "each": FIRST, "all": [0] * PAIRS}[kind]
        self.layer = nn.Linear(PAIRS * D, U)

    def interact(self, x: Tensor) -> Tensor:
        one = x.split(1, dim=1)
        made = [self.maps[n](one[i]) * one[j] for n, (i, j) in zip(self.number, pairs(), strict=True)]
        return torch.cat(made, 1).flatten(1)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        return self.layer(self.interact(fields(context, target))).relu()


class Squeezed(Bilinear):
    """FiBiNET's other branch: fields are scaled first, by a squeeze and excitation of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Linear(F, SQUEEZED, bias=False)
        self.excite = nn.Linear(SQUEEZED, F, bias=False)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        scale = self.excite(self.squeeze(x.mean(-1)).relu()).sigmoid()
        return self.layer(self.interact(x * scale.unsqueeze(-1))).relu()


class Reweighted(nn.Module):
    """Squeeze and excitation, then a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(F, SQUEEZED), nn.Linear(SQUEEZED, F)
        self.layer = nn.Linear(F * D, U)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        scale = self.excite(self.squeeze(x.mean(-1)).relu()).sigmoid()
        return self.layer((x * scale.unsqueeze(-1)).flatten(1)).relu()


LEFT = {"interaction": (PAIRS - TARGET_PAIRS, TARGET_PAIRS), "each": (F, M), "all": (F, M)}
"""Products x_i W once, and for every candidate."""


def raw_branch(kind: str) -> int:
    """Context pairs through the layer once; [D, U] from the context for each target field, once; target pairs each."""
    once, each = LEFT[kind]
    folds = MIXED_PAIRS * D * U + (MIXED_PAIRS if kind == "interaction" else M) * D * D * U
    pair = D + D * U
    return once * D * D + CONTEXT_PAIRS * pair + folds + N * (each * D * D + M * D * U + TARGET_PAIRS * pair)


SQUEEZE = F * SQUEEZED * (N * (M + 1) / F + K / F) + N * SQUEEZED * F

ARCHITECTURES = [
    Architecture(
        "CIN, first layer",
        lambda: Compressed(1),
        # context maps once; [H, M, D] from W and the context once; target maps each
        K * K * D * (1 + H) + 2 * H * K * M * D + N * (H * M * D + M * M * D * (1 + H)),
        products=True,
    ),
    Architecture(
        "CIN, second layer",
        SecondCompressed,
        # sum_k W[h, i, k] C[k] once; what is left are the target columns of X^0
        H * K * H * D + N * (H * H * D + M * H * D * (1 + H)),
        target={"target": (M, D), "maps": (H, D)},
        products=True,
    ),
    Architecture("FiBiNET, a matrix per pair", Bilinear, raw_branch("interaction"), products=True),
    Architecture("FiBiNET, a matrix per left field", lambda: Bilinear("each"), raw_branch("each"), products=True),
    Architecture("FiBiNET, one matrix", lambda: Bilinear("all"), raw_branch("all"), products=True),
    Architecture(
        "FiBiNET, squeezed",
        Squeezed,
        # context pairs keep their scales as two factors, [U, pairs] once; all other pairs each
        CONTEXT_PAIRS * (D * D + D + D * U)
        + N * (CONTEXT_PAIRS * (U + 1) + (MIXED_PAIRS + TARGET_PAIRS) * (D * D + D + D * U))
        + SQUEEZE,
        products=True,
    ),
    Architecture("squeeze and excitation, then a layer", Reweighted, K * D * U + SQUEEZE + N * (F * U + M * D * U)),
]

test_architecture = architecture_tests(ARCHITECTURES)
