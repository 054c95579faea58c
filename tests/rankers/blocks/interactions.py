"""Interactions: pairs of fields, cross layers, CIN, SENET, mixing of tokens."""

from __future__ import annotations

import torch
from rankers.blocks.registry import block, is_fields, is_vector, pairs
from rankers.model import Layers
from torch import Tensor, nn


@block(is_fields, form=("squares", "gram", "masked", "gathers", "loop", "repeated", "einsum", "flat"))
def fm(m: Layers, x: Tensor, form: str) -> Tensor:
    left, right = pairs(x.shape[1])
    if form == "squares":
        return (x.sum(1).pow(2) - x.pow(2).sum(1)) * 0.5
    if form == "gathers":
        return x.index_select(1, m.constant(left)) * x[:, m.constant(right)]
    if form == "loop":
        return torch.cat([x[:, i] * x[:, j] for i, j in zip(left, right, strict=True)], 1)
    if form == "repeated":
        es = x.split(1, 1)
        return torch.cat([es[i] for i in left], 1) * torch.cat([es[j] for j in right], 1)
    gram = torch.einsum("bid,bjd->bij", x, x) if form == "einsum" else torch.bmm(x, x.transpose(1, 2))
    if form == "masked":
        keep = m.constant(torch.triu(torch.ones(x.shape[1], x.shape[1]), 0).bool())
        return torch.masked_select(gram, keep).view(len(x), -1)
    return gram.flatten(1) if form == "flat" else gram[:, m.constant(left), m.constant(right)]


@block(is_fields, form=("matrix", "expand", "scalar", "each"))
def weighted_pairs(m: Layers, x: Tensor, form: str) -> Tensor:
    """A weight per pair of fields, or per field."""
    left, right = pairs(x.shape[1])
    d = x.shape[2]
    xi, xj = x[:, m.constant(left)], x[:, m.constant(right)]
    if form == "scalar":
        return (xi * xj).sum(-1) * m.weight(len(left))
    if form == "matrix":
        return (torch.matmul(xi.unsqueeze(2), m.weight(len(left), d, d)).squeeze(2) * xj).sum(-1)
    if form == "expand":
        w = m.weight(1, d, d).expand(len(x) * 1, -1, -1)
        return torch.bmm(xi, w) * xj
    return torch.cat([m.linear(d, d, False)(xi[:, k]) * xj[:, k] for k in range(len(left))], 1)


@block(is_vector, form=("linear", "mm", "column", "low rank", "vector", "sum", "gated", "mix"), depth=(1, 2, 3))
def cross(m: Layers, x0: Tensor, form: str, depth: int) -> Tensor:
    x, n = x0, x0.shape[1]
    for _ in range(depth):
        if form == "linear":
            step = x0 * m.linear(n, n)(x)
        elif form == "mm":
            step = x0 * (x @ m.weight(n, n) + m.weight(n))
        elif form == "column":
            step = x0 * torch.bmm(m.weight(n, n).expand(len(x), n, n), x.unsqueeze(2)).squeeze(2)
        elif form == "low rank":
            step = x0 * m.linear(2, n)(m.linear(n, 2, False)(x))
        elif form == "vector":
            step = x0 * (x @ m.weight(n, 1))
        elif form == "sum":
            step = x0 * (x * m.weight(n)).sum(1, keepdim=True)
        elif form == "gated":
            step = x0 * m.linear(n, n)(x) * torch.sigmoid(m.linear(n, n, False)(x))
        else:
            experts = torch.stack([x0 * m.linear(2, n)(m.linear(n, 2)(x).tanh()) for _ in range(2)], 2)
            step = torch.matmul(experts, m.linear(n, 2)(x).softmax(1).unsqueeze(2)).squeeze(2)
        x = x + 0.5 * step
    return x


@block(is_fields, form=("conv", "outer"), depth=(1, 2))
def cin(m: Layers, x0: Tensor, form: str, depth: int) -> Tensor:
    x, pooled = x0, []
    for _ in range(depth):
        z = torch.einsum("bhd,bmd->bhmd", x, x0) if form == "conv" else x.unsqueeze(2) * x0.unsqueeze(1)
        z = z.flatten(1, 2)
        size = z.shape[1]
        x = m.layer(lambda: nn.Conv1d(size, 3, 1))(z)  # noqa: B023  the layer is made at once
        pooled.append(x.sum(-1))
    return torch.cat(pooled, 1)


@block(is_fields, reduce=("mean", "max"), act=("relu", "sigmoid"))
def senet(m: Layers, x: Tensor, reduce: str, act: str) -> Tensor:
    z = x.mean(-1) if reduce == "mean" else x.max(-1).values
    f = x.shape[1]
    return x * getattr(torch, act)(m.linear(2, f)(m.linear(f, 2)(z).relu())).unsqueeze(-1)


@block(is_fields, heads=(1, 2), form=("ffn", "mix"))
def token_mixing(m: Layers, x: Tensor, heads: int, form: str) -> Tensor:
    """Tokens exchange slices of their vectors; a perceptron per token."""
    r, f, d = x.shape
    if form == "mix":
        return x.reshape(r, f, heads, d // heads).transpose(1, 2).reshape(r, heads, -1)
    h = torch.einsum("bfd,fde->bfe", x, m.weight(f, d, 3)).relu()
    return torch.einsum("rfk,fke->fre", h, m.weight(f, 3, d)).permute(1, 0, 2) + m.weight(f, d)


@block(is_fields, form=("gram", "linear"))
def wukong(m: Layers, x: Tensor, form: str) -> Tensor:
    w = m.weight(x.shape[1], 2)
    if form == "linear":
        return (x.transpose(1, 2) @ w).transpose(1, 2)
    z = torch.bmm(x, x.transpose(1, 2) @ w).flatten(1)
    return m.linear(z.shape[1], x.shape[2])(m.layer(lambda: nn.LayerNorm(z.shape[1]))(z)).relu()
