"""Ids: embeddings, bags, crossed and hashed ids, masks made of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rankers.blocks.registry import block, is_ids
from rankers.model import IDS, Layers
from torch import Tensor, nn


@block(is_ids, width=(4, 1, 6), padding=(None, 0), tied=(False, True))
def embed(m: Layers, x: Tensor, width: int, padding: int | None, tied: bool) -> Tensor:
    table = m.layer(lambda: nn.Embedding(IDS, width, padding))
    out = table(x.clamp(0, IDS - 1))
    return out @ (table.weight.t() @ table.weight) if tied else out


@block(is_ids, mode=("mean", "sum"), padding=(None, 0), fits=lambda x: x.ndim == 2)
def bag(m: Layers, x: Tensor, mode: str, padding: int | None) -> Tensor:
    return m.layer(lambda: nn.EmbeddingBag(IDS, 4, mode=mode, padding_idx=padding))(x.clamp(0, IDS - 1))


@block(is_ids, fits=lambda x: x.ndim == 2)
def offsets(m: Layers, x: Tensor) -> Tensor:
    """Packed ids with offsets into one table."""
    start = m.constant([IDS * i for i in range(x.shape[1])])
    return m.layer(lambda: nn.Embedding(IDS * x.shape[1], 4))(x.clamp(0, IDS - 1) + start)


@block(is_ids, form=("stack", "unsqueeze", "flat"), fits=lambda x: x.ndim == 2)
def tables(m: Layers, x: Tensor, form: str) -> Tensor:
    """A table per column of packed ids."""
    x = x.clamp(0, IDS - 1)
    rows = [m.layer(lambda: nn.Embedding(IDS, 4))(x[:, i]) for i in range(x.shape[1])]
    if form == "stack":
        return torch.stack(rows, dim=1)
    if form == "unsqueeze":
        return torch.cat([row.unsqueeze(1) for row in rows], dim=1)
    return torch.cat(rows, dim=-1).view(len(x), -1, 4)


@block(lambda x: x.dtype == torch.float32 and x.ndim == 2, fits=lambda x: bool((x == x.floor()).all()))
def float_ids(m: Layers, x: Tensor) -> Tensor:
    """Packed ids that came as floats, a column each."""
    columns = [x[:, i : i + 1].long().clamp(0, IDS - 1) for i in range(x.shape[1])]
    return torch.cat([m.layer(lambda: nn.Embedding(IDS, 4))(column) for column in columns], 1)


@block(is_ids, is_ids, form=("hash", "divide", "compare"), fits=lambda x, y: x.shape == y.shape)
def crossed_ids(m: Layers, x: Tensor, y: Tensor, form: str) -> Tensor:
    """Integer arithmetic on ids of both sides."""
    if form == "hash":
        return (x * 31 + y) % IDS
    return (x + y) // 2 if form == "divide" else (x >= y).long() + (x == 3).long()


@block(is_ids, form=("nonzero", "range"))
def to_mask(m: Layers, x: Tensor, form: str) -> Tensor:
    """A mask of padding, or of a length."""
    if x.ndim == 1:
        return torch.arange(3).unsqueeze(0) < x.unsqueeze(1)
    return x != 0 if form == "nonzero" else torch.arange(x.shape[1]) < (x != 0).sum(1, keepdim=True)


@block(is_ids, fits=lambda x: x.ndim == 1)
def one_hot(m: Layers, x: Tensor) -> Tensor:
    return F.one_hot(x.clamp(0, 3), 4).to(m.dtype)
