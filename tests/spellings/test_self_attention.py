"""Self-attention over fields and over a history, with heads in every place."""

from __future__ import annotations

import torch
from laws.harness import Like
from spellings.harness import STEPS, N, fields, mask, spelled, spelling_tests
from torch import Tensor, nn

HEADS, A = 2, 32
K, M, D = 20, 4, 16
"""More fields than elsewhere: what is kept apart has to be worth the calls that it takes."""
F = K + M
WIDTH = A // HEADS
FIELDS = {"c": Like((K, D)), "t": Like((M, D))}
OVER_HISTORY = {"history": Like((STEPS, D)), "target": Like((D,))}
MAPS = K * D * A + N * M * D * A
"""One linear map of all fields."""
SCORES = K * K * A + N * M * (K + F) * A
"""Scores of context with context once; those of target with all, both ways."""
MIXED = K * K * A + N * M * (K + F) * A


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(D, A, bias=False) for _ in range(3))


@spelled(inputs=FIELDS, work=3 * MAPS + SCORES + MIXED)
class HeadsByPermute(Maps):
    """[R, F, H, d], permuted, copied, folded to [H * R, F, d]: the rows are the outer part of the batch."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        q, k, v = (
            f(x).view(-1, F, HEADS, WIDTH).permute(0, 2, 1, 3).contiguous().view(-1, F, WIDTH) for f in self.maps
        )
        mixed = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return mixed.view(-1, HEADS, F, WIDTH).transpose(1, 2).contiguous().view(-1, F, A).relu()


@spelled(inputs=FIELDS, share=0.75)
class HeadsWithoutPermute(Maps):
    """[R, F, H * d] viewed straight as [R * H, F, d]: a head is half of the fields, in two halves each."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        q, k, v = (f(x).view(-1, F, WIDTH) for f in self.maps)
        mixed = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return mixed.view(-1, F, A).relu()


@spelled("stack", inputs=FIELDS, work=3 * MAPS + SCORES + MIXED)
@spelled("cat", inputs=FIELDS, work=3 * MAPS + SCORES + MIXED)
class HeadsOnDim0(Maps):
    """Heads split off the last dim and stacked, or concatenated, on dim 0: rows are the inner part of the batch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        if self.how == "stack":
            q, k, v = (torch.stack(torch.split(f(x), WIDTH, dim=2)) for f in self.maps)  # [H, R, F, d]
            scores = torch.einsum("bnik,bnjk->bnij", q, k).softmax(-1)
            mixed = torch.matmul(scores, v)
            return torch.cat(torch.split(mixed, 1), dim=-1).squeeze(0).relu()
        q, k, v = (torch.cat(torch.split(f(x), WIDTH, dim=2), dim=0) for f in self.maps)  # [H * R, F, d]
        mixed = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return torch.cat(torch.split(mixed, x.shape[0], dim=0), dim=-1).relu()


@spelled(inputs=FIELDS, work=K * K * D + N * M * F * D + N * F * F * D)
class PairWeights(nn.Module):
    """One head, no maps: scores x x^T times a weight for each pair, without a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(F, F))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        return torch.bmm((torch.bmm(x, x.permute(0, 2, 1)) * self.weight).tanh(), x)


# ------------------------------------------------------------------------------------------------------ over a history

OF_HISTORY = 3 * STEPS * D * D + 2 * STEPS * STEPS * D + STEPS * D * D
FEED_FORWARD = 2 * STEPS * D * 2 * D
WITH_TARGET = (STEPS + 1) * D
MASKED_HISTORY = {**OVER_HISTORY, "kept": mask(STEPS)}


@spelled(True, inputs=OVER_HISTORY, context=["history"], work=OF_HISTORY + N * STEPS * D)
@spelled(False, inputs=OVER_HISTORY, context=["history"], work=OF_HISTORY + N * STEPS * D)
class SelfAttention(nn.Module):
    """nn.MultiheadAttention of a history with itself, batch first, with and without weights; once per request."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.attention = nn.MultiheadAttention(D, HEADS, batch_first=True)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        mixed, _ = self.attention(history, history, history, need_weights=self.need_weights)
        return (mixed @ target.unsqueeze(2)).squeeze(2)


@spelled(inputs=OVER_HISTORY, context=["history"], work=OF_HISTORY + N * STEPS * D)
class StepsFirst(nn.Module):
    """nn.MultiheadAttention as it is by default: rows on axis 1, [L, R, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, HEADS)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        x = history.transpose(0, 1)
        mixed = self.attention(x, x, x)[0].transpose(0, 1)
        return (mixed @ target.unsqueeze(2)).squeeze(2)


@spelled("one", inputs=OVER_HISTORY, context=["history"], work=2 * STEPS * D * D + N * (2 * D * D + 2 * STEPS * D))
@spelled("own", inputs=OVER_HISTORY, context=["history"], work=2 * STEPS * D * D + N * (2 * D * D + 2 * STEPS * D))
class TargetAsks(nn.Module):
    """nn.MultiheadAttention of the target over the history: one in-projection, or one of each operand's own."""

    def __init__(self, projections: str) -> None:
        super().__init__()
        sizes = {"kdim": D, "vdim": D} if projections == "one" else {"kdim": D - 1, "vdim": D - 2}
        self.cut = 0 if projections == "one" else 1
        self.attention = nn.MultiheadAttention(D, HEADS, batch_first=True, **sizes)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        keys, values = history[..., self.cut :], history[..., 2 * self.cut :]
        return self.attention(target.unsqueeze(1), keys, values)[0].squeeze(1).relu()


@spelled(True, inputs=OVER_HISTORY, context=["history"], work=OF_HISTORY + FEED_FORWARD + N * STEPS * D)
@spelled(False, inputs=OVER_HISTORY, context=["history"], work=OF_HISTORY + FEED_FORWARD + N * STEPS * D)
class Encoder(nn.Module):
    """nn.TransformerEncoderLayer over the history alone."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(D, HEADS, 2 * D, batch_first=True, norm_first=norm_first)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return (self.layer(history) * target.unsqueeze(1)).sum((1, 2)).tanh()


@spelled(inputs=OVER_HISTORY, context=["history"], share=0.75)
class TargetAppended(nn.Module):
    """BST: the target behind the history, an encoder over both."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(D, HEADS, 2 * D, batch_first=True)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return self.layer(torch.cat([history, target.unsqueeze(1)], 1)).flatten(1)


@spelled(
    inputs=MASKED_HISTORY,
    context=["history", "kept"],
    share=0.9,
    opaque={"scaled_dot_product_attention": "no part of query, key or value is rank-2"},
)
class TargetAtEveryStep(nn.Module):
    """TransAct: the target beside every step, padding masked, rows without any step opened by a boolean assignment."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(2 * D, HEADS, 2 * D, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, history: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        x = torch.cat([history, target.unsqueeze(1).expand(-1, STEPS, -1)], -1)
        padding = ~kept
        padding[padding.all(dim=1), -1] = False
        x = self.encoder(x, src_key_padding_mask=padding)
        return x.masked_fill(padding.unsqueeze(-1), -1e9).max(dim=1).values


@spelled(inputs=MASKED_HISTORY, context=["history", "kept"], work=OF_HISTORY + N * STEPS * D)
class MaskOfPairs(nn.Module):
    """A mask [R, 1, L] repeated to [R, L, L], its diagonal opened, repeated for the heads, and made -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, HEADS, batch_first=True)

    def forward(self, history: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        steps = torch.arange(STEPS)
        closed = (~kept).unsqueeze(1).repeat(1, STEPS, 1) & ~steps.unsqueeze(0).eq(steps.unsqueeze(1))
        closed = closed.unsqueeze(1).repeat(1, HEADS, 1, 1).view(-1, STEPS, STEPS)
        scores = torch.zeros_like(closed, dtype=history.dtype)
        scores = torch.where(closed, torch.full_like(scores, float("-inf")), scores)
        mixed = self.attention(history, history, history, attn_mask=scores, need_weights=False)[0]
        return (mixed @ target.unsqueeze(2)).squeeze(2)


@spelled(inputs=OVER_HISTORY, context=["history"], work=OF_HISTORY + N * STEPS * D)
class Causal(nn.Module):
    """A causal mask over the history."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(D, D) for _ in range(4))

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        q, k, v = (f(history).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in self.maps[:3])
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return (self.maps[3](mixed.transpose(1, 2).flatten(2)) @ target.unsqueeze(2)).squeeze(2)


@spelled(inputs=MASKED_HISTORY, context=["history", "kept"], work=2 * STEPS * D * A + N * (D * A + 2 * STEPS * A))
class MultiHeadTargetAttention(Maps):
    """A query [R, 1, H, d] of the target, keys and values of the history, scores filled with -2**32 + 1."""

    def forward(self, history: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        q, k, v = (f(x) for f, x in zip(self.maps, (target.unsqueeze(1), history, history), strict=True))
        q, k, v = (x.view(x.shape[0], -1, HEADS, WIDTH).transpose(1, 2) for x in (q, k, v))
        scores = torch.matmul(q, k.transpose(-2, -1)) / WIDTH**0.5
        closed = kept.view(-1, 1, 1, STEPS).expand(-1, HEADS, -1, -1) == 0
        scores = scores.masked_fill(closed, -(2.0**32) + 1)
        return (scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(-1, A).relu()


test_spelling = spelling_tests(__name__)
