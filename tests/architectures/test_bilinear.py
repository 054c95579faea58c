"""Compressed and bilinear interactions: CIN, FiBiNET."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.harness import (
    FEW,
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

H = 128


class Compressed(nn.Module):
    """CIN: X^l[h] = sum_ij W[h, i, j] X^(l-1)[i] X^0[j], a convolution of width one; all layers are summed over D."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        widths = [F, *[H] * layers]
        self.maps = nn.ModuleList(nn.Conv1d(F * width, H, 1) for width in widths[:-1])

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
    """FiBiNET's raw branch: (x_i W_ij) * x_j for every pair, through a layer; a W per pair, per left field, or one."""

    def __init__(self, kind: str = "interaction", f: Fields = FEW) -> None:
        super().__init__()
        self.pairs = pairs(f.k + f.m)
        numbers = {"interaction": range(f.pairs), "each": [i for i, _ in self.pairs], "all": [0] * f.pairs}
        self.number = list(numbers[kind])
        self.maps = nn.ModuleList(nn.Linear(D, D, bias=False) for _ in range(max(self.number) + 1))
        self.layer = nn.Linear(f.pairs * D, U)

    def interact(self, x: Tensor) -> Tensor:
        one = x.split(1, dim=1)
        made = [self.maps[n](one[i]) * one[j] for n, (i, j) in zip(self.number, self.pairs, strict=True)]
        return torch.cat(made, 1).flatten(1)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        return self.layer(self.interact(fields(context, target))).relu()


class Squeezed(Bilinear):
    """FiBiNET's other branch: fields are scaled first, by a squeeze and excitation of all of them."""

    def __init__(self, kind: str = "interaction", f: Fields = FEW) -> None:
        super().__init__(kind, f)
        self.squeeze = nn.Linear(f.k + f.m, (f.k + f.m) // 3, bias=False)
        self.excite = nn.Linear((f.k + f.m) // 3, f.k + f.m, bias=False)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        scale = self.excite(self.squeeze(x.mean(-1)).relu()).sigmoid()
        return self.layer(self.interact(x * scale.unsqueeze(-1))).relu()


class Reweighted(nn.Module):
    """Squeeze and excitation, then a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(F, F // 3), nn.Linear(F // 3, F)
        self.layer = nn.Linear(F * D, U)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = fields(context, target)
        scale = self.excite(self.squeeze(x.mean(-1)).relu()).sigmoid()
        return self.layer((x * scale.unsqueeze(-1)).flatten(1)).relu()


def raw_branch(kind: str, f: Fields = FEW) -> int:
    """Context pairs through the layer once; [D, U] from the context for each target field, once; target pairs each."""
    left = f.target_pairs if kind == "interaction" else f.m  # products x_i W for every candidate
    once = f.pairs if kind == "interaction" else f.k + f.m
    folds = f.mixed_pairs * D * U + (f.mixed_pairs if kind == "interaction" else f.m) * D * D * U
    pair = D + D * U
    return once * D * D + f.context_pairs * pair + folds + N * (left * D * D + f.m * D * U + f.target_pairs * pair)


def squeeze(f: Fields) -> int:
    """Means and first layer: context part once."""
    hidden = (f.k + f.m) // 3
    return f.k * (D + hidden) + N * (f.m * (D + hidden) + hidden * (f.k + f.m))


def scaled_branch(f: Fields = FEW) -> int:
    """Context pairs keep their scales as two factors, [U, pairs] once; all other pairs each."""
    others = f.mixed_pairs + f.target_pairs
    return (
        f.context_pairs * (D * D + D + D * U)
        + N * (f.context_pairs * (U + 1) + others * (D * D + D + D * U))
        + squeeze(f)
    )


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
    Architecture("FiBiNET, a matrix per pair", Bilinear, raw_branch("interaction"), products=True, **few(D)),
    Architecture(
        "FiBiNET, a matrix per left field", lambda: Bilinear("each"), raw_branch("each"), products=True, **few(D)
    ),
    Architecture("FiBiNET, one matrix", lambda: Bilinear("all"), raw_branch("all"), products=True, **few(D)),
    Architecture("FiBiNET, squeezed", Squeezed, scaled_branch(), products=True, **few(D)),
    Architecture(
        "squeeze and excitation, then a layer",
        Reweighted,
        # a scale times a context field through the layer: [U, K] once, U K each
        K * D * U + squeeze(Fields(K, M)) + N * (K * U + M * D * (U + 1)),
        products=True,
    ),
]

test_architecture = architecture_tests(ARCHITECTURES)
