"""Attention among fields and over a history, with and without what stands around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from architectures.harness import D_ALL, Architecture, D, F, K, M, N, architecture_tests, fields

A, HEADS, L = 32, 2, 50
HISTORY = {"history": (L, D)}


class FieldAttention(nn.Module):
    """AutoInt: softmax(Q K^T) V by heads, + W x, a norm, a ReLU."""

    def __init__(self, width: int = D, residual: bool = True, norm: bool = False) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, A, bias=False) for _ in range(3 + residual))
        self.norm = nn.LayerNorm(A) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, *residual = (layer(x) for layer in self.maps)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = (torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v).transpose(1, 2).flatten(2)
        return torch.relu(self.norm(mixed + residual[0] if residual else mixed))


class AutoInt(nn.Module):
    def __init__(self, layers: int = 1, residual: bool = True, norm: bool = False) -> None:
        super().__init__()
        widths = [D, *[A] * layers]
        self.layers = nn.Sequential(*(FieldAttention(width, residual, norm) for width in widths[:-1]))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        return self.layers(fields(context, target))


class RankAware(nn.Module):
    """Context attends to context, target to both."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        widths = [D, *[A] * layers]
        self.own = nn.ModuleList(nn.ModuleList(nn.Linear(w, A, bias=False) for _ in range(4)) for w in widths[:-1])
        self.both = nn.ModuleList(nn.ModuleList(nn.Linear(w, A, bias=False) for _ in range(4)) for w in widths[:-1])

    def forward(self, context: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        c, t = context, target
        for own, both in zip(self.own, self.both, strict=True):
            keys, values = (torch.cat([own[i](c), both[i](t)], 1) for i in (1, 2))
            mixed = torch.softmax(both[0](t) @ keys.transpose(1, 2), -1) @ values
            t = torch.relu(mixed + both[3](t))
            inner = torch.softmax(own[0](c) @ own[1](c).transpose(1, 2), -1) @ own[2](c)
            c = torch.relu(inner + own[3](c))
        return c, t


class TransformerLayer(nn.Module):
    """Attention, a projection, a residual and a norm; a feed-forward network of the same kind."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(D, D, bias=False) for _ in range(4))
        self.widen, self.narrow = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x) for layer in self.maps[:3])
        mixed = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(D), -1) @ v
        x = self.norms[0](self.maps[3](mixed).relu() + x)
        return self.norms[1](self.narrow(self.widen(x).relu()) + x)


class InterHAt(nn.Module):
    """A transformer layer; then orders of products, each pooled by an attention of its own."""

    def __init__(self, orders: int = 2) -> None:
        super().__init__()
        self.transformer = TransformerLayer()
        self.hidden = nn.ModuleList(nn.Linear(D, 4 * D) for _ in range(orders))
        self.score = nn.ModuleList(nn.Linear(4 * D, 1, bias=False) for _ in range(orders))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = first = self.transformer(fields(context, target))
        pooled = []
        for hidden, score in zip(self.hidden, self.score, strict=True):
            u = (score(hidden(x).relu()).softmax(1) * x).sum(1)
            pooled.append(u)
            x = u.unsqueeze(1) * first + x
        return torch.cat(pooled, 1)


class BehaviourSequence(nn.Module):
    """BST: the target behind the history, a transformer layer over both."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TransformerLayer()
        self.positions = nn.Parameter(torch.randn(L + 1, D))

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return self.transformer(torch.cat([history, target.unsqueeze(1)], 1) + self.positions).flatten(1)


class TargetAttention(nn.Module):
    """The target asks, the history answers, by heads; padding is masked by a large negative number."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.maps = nn.ModuleList(nn.Linear(D, A) for _ in range(3))
        self.out = nn.Linear(A, D)

    def forward(self, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        q, k, v = (f(x) for f, x in zip(self.maps, (target.unsqueeze(1), history, history), strict=True))
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        kept = mask[:, None, None]
        if self.how == "fused":
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=kept)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(A // HEADS)
            if self.how == "where":
                scores = torch.where(kept, scores, torch.full_like(scores, -1e9))
            elif self.how == "additive":
                scores = scores + (1.0 - kept.to(scores.dtype)) * -1e9
            weights = torch.softmax(scores, -1)
            if self.how == "multiplicative":
                weights = weights * kept
            mixed = weights @ v
        return self.out(mixed.transpose(1, 2).flatten(1))


class Interest(nn.Module):
    """DIN: a perceptron over [t, h, t - h, t h] for each step, a masked, weighted sum."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.softmax = softmax
        self.unit = nn.Sequential(nn.Linear(4 * D, 64), nn.Sigmoid(), nn.Linear(64, 16), nn.Sigmoid(), nn.Linear(16, 1))

    def forward(self, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        item = target.unsqueeze(1).expand_as(history)
        scores = self.unit(torch.cat([item, history, item - history, item * history], -1)).squeeze(-1)
        weights = scores.masked_fill(~mask, -1e9).softmax(-1) if self.softmax else scores * mask
        return (weights.unsqueeze(-1) * history).sum(1)


class EvolvedInterest(nn.Module):
    """DIEN's attention: softmax(h W t) over states of the history, which a recurrence has found before."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.randn(D, D) / 4)

    def forward(self, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        scores = torch.einsum("rld,de,re->rl", history, self.map, target)
        return torch.einsum("rl,rld->rd", torch.softmax(scores.masked_fill(~mask, -1e9), -1), history)


class Pooled(nn.Module):
    """The mean of the steps that are there, beside the target."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * D, 64)

    def forward(self, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        kept = mask.unsqueeze(-1).to(history.dtype)
        mean = (history * kept).sum(1) / kept.sum(1).clamp_min(1.0)
        return self.layer(torch.cat([mean, target], 1)).relu()


class TwoTowers(nn.Module):
    """A tower each, and the product of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Sequential(nn.Linear(K * D, 64), nn.ReLU(), nn.Linear(64, D))
        self.item = nn.Sequential(nn.Linear(M * D, 64), nn.ReLU(), nn.Linear(64, D))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        user = nn.functional.normalize(self.user(context.flatten(1)), dim=1)
        item = nn.functional.normalize(self.item(target.flatten(1)), dim=1)
        return (user * item).sum(1)


def layer(maps: int, width: int = A, k: int = K, m: int = M) -> int:
    """An attention of `maps` maps: those of context, and context with context, once."""
    return (
        maps * k * D * width
        + 2 * k * k * width
        + N * (maps * m * D * width + 2 * k * m * width + 2 * m * (k + m) * width)
    )


RANK_AWARE = 4 * K * D * A + 2 * K * K * A + N * (4 * M * D * A + 2 * M * F * A)
FEED_FORWARD = N * 8 * D * D
"""Per field or step."""
PROJECTION = N * D * D
OVER_HISTORY = {"context": {**HISTORY, "mask": (L,)}, "target": {"target": (D,)}}
TARGET_ATTENTION = L * 2 * D * A + N * (D * A + 2 * L * A + A * D)
INTEREST = 2 * L * D * 64 + N * (D * 64 + L * D * 64 + L * (64 * 16 + 16) + L * D)

ARCHITECTURES = [
    Architecture("AutoInt layer", AutoInt, layer(4)),
    Architecture("AutoInt layer without residual", lambda: AutoInt(residual=False), layer(3)),
    Architecture("AutoInt layer with a norm", lambda: AutoInt(norm=True), layer(4)),
    Architecture("AutoInt, two layers", lambda: AutoInt(2), layer(4) + N * (4 * F * A * A + 2 * F * F * A)),
    Architecture("rank-aware attention", RankAware, RANK_AWARE),
    Architecture(
        "rank-aware attention, three layers",
        lambda: RankAware(3),
        # the context stays context at every depth
        4 * K * (D + 2 * A) * A + 6 * K * K * A + N * (4 * M * (D + 2 * A) * A + 6 * M * F * A)
        + 2 * 2 * K * (D + 2 * A) * A,
    ),
    Architecture(
        "InterHAt",
        InterHAt,
        layer(3, D) + F * (PROJECTION + FEED_FORWARD) + N * 2 * (F * (4 * D * D + 4 * D) + D_ALL),
    ),
    Architecture(
        "BST",
        BehaviourSequence,
        layer(3, D, L, 1) + (L + 1) * (PROJECTION + FEED_FORWARD),
        context=HISTORY,
        target={"target": (D,)},
    ),
    *(
        Architecture(
            f"target attention, mask {how}", lambda how=how: TargetAttention(how), TARGET_ATTENTION, **OVER_HISTORY
        )
        for how in ("where", "additive", "multiplicative", "fused")
    ),
    Architecture("DIN, mask multiplicative", Interest, INTEREST, **OVER_HISTORY),
    Architecture("DIN, softmax", lambda: Interest(softmax=True), INTEREST, **OVER_HISTORY),
    Architecture("DIEN's attention", EvolvedInterest, L * D * D + N * 2 * L * D, **OVER_HISTORY),
    Architecture("pooled history", Pooled, D * 64 + N * D * 64, **OVER_HISTORY),
    Architecture("two towers", TwoTowers, K * D * 64 + 64 * D + N * (M * D * 64 + 64 * D + D)),
]  # fmt: skip

test_architecture = architecture_tests(ARCHITECTURES)
