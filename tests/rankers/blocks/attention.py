"""Attention: over fields, over a history, with a target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rankers.blocks.registry import block, is_fields, is_mask, is_vector, masks
from rankers.model import Layers
from torch import Tensor, nn


@block(is_fields, form=("heads", "fold", "outermost", "one", "sdpa"), residual=(False, True))
def self_attention(m: Layers, x: Tensor, form: str, residual: bool) -> Tensor:
    r, f, d = x.shape
    q, k, v = (m.linear(d, 4, False)(x) for _ in range(3))
    if form == "one":
        out = (q @ k.transpose(1, 2) / 2).softmax(-1) @ v
    elif form == "fold":
        q, k, v = (z.view(-1, f, 2) for z in (q, k, v))
        out = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v).view(r, f, 4)
    elif form == "outermost":
        q, k, v = (torch.stack(z.split(2, dim=-1)) for z in (q, k, v))
        weights = F.softmax(torch.einsum("hbik,hbjk->hbij", q, k), dim=-1)
        out = torch.cat(torch.split(weights @ v, 1), dim=-1).squeeze(0)
    else:
        q, k, v = (z.view(r, f, 2, 2).permute(0, 2, 1, 3) for z in (q, k, v))
        if form == "sdpa":
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = ((q @ k.transpose(-1, -2)) * 2**-0.5).softmax(-1) @ v
        out = out.transpose(1, 2).reshape(r, f, 4)
    return F.relu(out + m.linear(d, 4)(x)) if residual else out


def even(x: Tensor, *_: Tensor) -> bool:
    return x.shape[2] in (2, 4, 6)


@block(is_fields, form=("first", "last", "no weights"), fits=even)
def multihead(m: Layers, x: Tensor, form: str) -> Tensor:
    layer = m.layer(lambda: nn.MultiheadAttention(x.shape[2], 2, batch_first=form != "last"))
    if form == "last":
        y = x.transpose(0, 1)
        return layer(y, y, y)[0].transpose(0, 1)
    return layer(x, x, x, need_weights=form == "first")[0]


@block(is_fields, first=(False, True), fits=even)
def encoder(m: Layers, x: Tensor, first: bool) -> Tensor:
    make = lambda: nn.TransformerEncoderLayer(x.shape[2], 2, 5, batch_first=True, norm_first=first)  # noqa: E731
    return m.layer(make)(x)


@block(
    is_fields,
    is_mask,
    is_vector,
    form=("none", "where", "times", "fill", "additive"),
    softmax=(True, False),
    fits=masks,
)
def din(m: Layers, x: Tensor, mask: Tensor, target: Tensor, form: str, softmax: bool) -> Tensor:
    """Attention of a target over a history."""
    t = m.linear(target.shape[1], x.shape[2])(target).unsqueeze(1).expand_as(x)
    score = m.linear(5, 1)(m.linear(4 * x.shape[2], 5)(torch.cat([t, x, t - x, t * x], -1)).relu()).squeeze(-1)
    if form == "where":
        score = torch.where(mask, score, torch.full_like(score, -(2.0**15)))
    elif form == "fill":
        score = score.masked_fill(~mask, float("-inf") if not softmax else -30000.0)
    elif form == "additive":
        score = score + (1.0 - mask.to(m.dtype)) * -1e4
    elif form == "times":
        score = score * mask
    weights = score.softmax(1) if softmax else score.sigmoid()
    return torch.bmm(weights.unsqueeze(1), x).squeeze(1) if form == "times" else (weights.unsqueeze(-1) * x).sum(1)


@block(is_fields, is_vector, is_mask, form=("none", "padding"), fits=lambda x, _, mask: even(x) and masks(x, mask))
def target_attention(m: Layers, x: Tensor, target: Tensor, mask: Tensor, form: str) -> Tensor:
    """nn.MultiheadAttention of one query; a history that is masked whole gives NaN, or zeros."""
    q = m.linear(target.shape[1], x.shape[2])(target).unsqueeze(1)
    layer = m.layer(lambda: nn.MultiheadAttention(x.shape[2], 2, batch_first=True))
    return layer(q, x, x, key_padding_mask=~mask if form == "padding" else None, need_weights=False)[0].squeeze(1)
