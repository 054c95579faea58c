"""Sequences: pooled with and without masks, and what reads their order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rankers.blocks.registry import block, is_fields, is_ids, is_mask, masks
from rankers.model import Layers
from torch import Tensor, nn


@block(is_fields, is_mask, form=("sum", "mean", "where", "max", "nan", "last"), fits=masks)
def pooled(m: Layers, x: Tensor, mask: Tensor, form: str) -> Tensor:
    """A history pooled under its mask, which may leave nothing."""
    kept = mask.unsqueeze(-1).to(x.dtype)
    total, count = (x * kept).sum(1), kept.sum(1)
    if form == "sum":
        return total
    if form == "mean":
        return total / (count + 1e-3)
    if form == "where":
        return torch.where(mask.unsqueeze(-1), x, 0.0).mean(1)
    if form == "max":
        return x.masked_fill(~mask.unsqueeze(-1), -100.0).max(1).values
    if form == "nan":
        return torch.where(count > 0, total / count, torch.zeros_like(total))
    at = (mask.long().sum(1) - 1).clamp_min(0)
    return x.gather(1, at.view(-1, 1, 1).expand(-1, 1, x.shape[2])).squeeze(1)


@block(is_fields, form=("sum", "mean", "max", "logsumexp", "first", "attention"))
def reduced(m: Layers, x: Tensor, form: str) -> Tensor:
    if form == "max":
        return x.max(dim=1).values
    if form == "first":
        return x[:, 0]
    if form == "attention":
        weights = m.linear(3, 1, False)(m.linear(x.shape[2], 3)(x).relu()).softmax(1)
        return (weights * x).sum(1)
    return torch.logsumexp(x, 1) if form == "logsumexp" else getattr(torch, form)(x, 1)


@block(is_fields, form=("cumsum", "position", "conv", "pool", "topk", "gru", "zeros"))
def sequence(m: Layers, x: Tensor, form: str) -> Tensor:
    """Along the history."""
    r, f, d = x.shape
    if form == "cumsum":
        return x.cumsum(1)
    if form == "position":
        return x + m.layer(lambda: nn.Embedding(f, d))(torch.arange(f)).expand(r, -1, -1)
    if form == "conv":
        return m.layer(lambda: nn.Conv1d(d, d, 3, padding=1))(x.transpose(1, 2)).transpose(1, 2)
    if form == "pool":
        return F.max_pool1d(x, 2, 2) if d > 1 else x
    if form == "gru":
        return m.layer(lambda: nn.GRU(d, d, batch_first=True))(x)[0]
    if form == "zeros":
        return torch.cat([torch.zeros(len(x), 1, d, dtype=x.dtype), x], 1)
    return x.topk(1, dim=1).values


@block(is_ids, is_fields, fits=lambda ids, x: ids.ndim == 1)
def picked(m: Layers, ids: Tensor, x: Tensor) -> Tensor:
    """A step of the history that the data name."""
    return x.gather(1, (ids % x.shape[1]).view(-1, 1, 1).expand(-1, -1, x.shape[2])).squeeze(1)
