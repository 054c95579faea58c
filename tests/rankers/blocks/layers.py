"""Layers: gates, experts, towers, a recurrent cell, norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rankers.blocks.registry import block, is_float, is_vector
from rankers.model import Layers
from torch import Tensor, nn


@block(is_vector, is_vector, form=("mask", "prior", "gate"))
def gated(m: Layers, x: Tensor, y: Tensor, form: str) -> Tensor:
    n = x.shape[1]
    if form == "mask":
        return m.layer(lambda: nn.LayerNorm(n))(x) * m.linear(3, n)(m.linear(y.shape[1], 3)(y).relu())
    gate = 2 * m.linear(y.shape[1], n)(y).sigmoid()
    return x * gate if form == "prior" else gate * x.relu() + (1 - gate) * m.linear(n, n)(x)


@block(is_vector, is_vector, heads=(1, 2), fits=lambda x, y: x.shape == y.shape and x.shape[1] % 2 == 0)
def bilinear(m: Layers, x: Tensor, y: Tensor, heads: int) -> Tensor:
    r, n = x.shape
    d = n // heads
    xw = torch.matmul(x.view(r, heads, 1, d), m.weight(heads, d, d)).squeeze(2)
    return (xw * y.view(r, heads, d)).sum(-1)


@block(is_vector, experts=(2, 3), form=("bmm", "sum"))
def mmoe(m: Layers, x: Tensor, experts: int, form: str) -> Tensor:
    outs = torch.stack([m.linear(x.shape[1], 4)(x).relu() for _ in range(experts)], dim=1)
    gates = [m.linear(x.shape[1], experts)(x).softmax(-1) for _ in range(2)]
    if form == "bmm":
        return torch.cat([torch.bmm(g.unsqueeze(1), outs).squeeze(1) for g in gates], 1)
    return torch.cat([(g.unsqueeze(-1) * outs).sum(1) for g in gates], 1)


@block(is_vector, layers=(1, 2), norm=(None, "batch", "layer"), act=("relu", "tanh", "dice"))
def tower(m: Layers, x: Tensor, layers: int, norm: str | None, act: str) -> Tensor:
    for _ in range(layers):
        x = m.linear(x.shape[1], 6)(x)
        if norm:
            x = m.layer(lambda: batch_norm(6) if norm == "batch" else nn.LayerNorm(6))(x)
        if act == "dice":
            gate = torch.sigmoid(m.layer(lambda: batch_norm(6, affine=False))(x))
            x = gate * x + (1 - gate) * m.weight(6) * x
        else:
            x = getattr(torch, act)(x)
    return x


def batch_norm(size: int, affine: bool = True) -> nn.BatchNorm1d:
    """With statistics, as training leaves them."""
    layer = nn.BatchNorm1d(size, affine=affine)
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return layer


@block(is_vector, is_vector, fits=lambda x, y: x.shape[1] <= 8)
def gru(m: Layers, x: Tensor, h: Tensor) -> Tensor:
    n = h.shape[1]
    return m.layer(lambda: nn.GRUCell(x.shape[1], n))(x, h)


@block(is_float, form=("layer", "rms", "hand", "l2", "batch", "flat", "standard"))
def norm(m: Layers, x: Tensor, form: str) -> Tensor:
    d = x.shape[-1]
    if form == "layer":
        return m.layer(lambda: nn.LayerNorm(d, eps=1e-2))(x)
    if form == "rms":
        return m.layer(lambda: nn.RMSNorm(d, eps=1e-2))(x)
    if form == "hand":
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-2) * m.weight(d)
    if form == "l2":
        return F.normalize(x, dim=-1, eps=1e-2)
    if form == "batch":
        return m.layer(lambda: batch_norm(x.shape[1]))(x)
    if form == "flat":
        return F.layer_norm(x, x.shape[1:], eps=1e-2)
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + 0.1).sqrt()
