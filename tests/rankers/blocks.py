"""The blocks of random rankers, in the spellings of real models.

A block is a function of its layers, its operands and its options. `@block` says which values it takes and between
which options to choose, the simplest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from rankers.model import IDS, Layers
from torch import Tensor, nn

Kind = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Block:
    """A function of layers, operands and options; what operands it takes, and whether they fit each other."""

    run: Callable[..., Tensor]
    kinds: tuple[Kind, ...]
    fits: Callable[..., Any]
    options: dict[str, tuple[Any, ...]] = field(default_factory=dict)


BLOCKS: dict[str, Block] = {}


def block(*kinds: Kind, fits: Callable[..., Any] = lambda *_: True, **options: tuple[Any, ...]) -> Callable[..., Any]:
    """Registers a block under the name of its function."""

    def register(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        BLOCKS[run.__name__.rstrip("_")] = Block(run, kinds, fits, options)
        return run

    return register


def is_fields(x: Tensor) -> bool:
    """[R, F, D]: fields, or the steps of a history."""
    return x.is_floating_point() and x.ndim == 3


def is_vector(x: Tensor) -> bool:
    return x.is_floating_point() and x.ndim == 2


def is_float(x: Tensor) -> bool:
    return x.is_floating_point() and x.ndim in (2, 3)


def is_ids(x: Tensor) -> bool:
    return x.dtype == torch.int64


def is_mask(x: Tensor) -> bool:
    return x.dtype == torch.bool and x.ndim == 2


def is_scalar(x: Tensor) -> bool:
    return x.ndim == 0


def masks(x: Tensor, mask: Tensor, *_: Tensor) -> bool:
    return mask.shape == x.shape[:2]


def pairs(count: int) -> tuple[list[int], list[int]]:
    both = [(i, j) for i in range(count) for j in range(i + 1, count)] or [(0, 0)]
    return [i for i, _ in both], [j for _, j in both]


# ------------------------------------------------------------------------------------------------------ embedding


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


# ------------------------------------------------------------------------------------------------------ fields


@block(is_float, is_float, dim=(1, -1, 0), fits=lambda x, y: x.shape == y.shape)
def stacked(m: Layers, x: Tensor, y: Tensor, dim: int) -> Tensor:
    if x.ndim == 2:
        return torch.stack([x, y], dim=1)
    return torch.stack([x, y], 0).permute(1, 0, 2, 3).flatten(1, 2) if dim == 0 else torch.cat([x, y], dim)


@block(is_vector, is_vector, fits=lambda x, y: x.shape[1] + y.shape[1] <= 40)
def joined(m: Layers, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], dim=1)


@block(is_fields, is_fields, fits=lambda x, y: x.shape[2] == y.shape[2] and x.shape[1] + y.shape[1] <= 9)
def joined_fields(m: Layers, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], dim=1)


@block(is_fields, is_vector, fits=lambda x, y: x.shape[2] == y.shape[1])
def appended(m: Layers, x: Tensor, y: Tensor) -> Tensor:
    """The target at the end of the history."""
    return torch.cat([x, y.unsqueeze(1)], 1)


@block(is_fields, is_vector)
def to_every_step(m: Layers, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y.unsqueeze(1).expand(-1, x.shape[1], -1)], dim=-1)


@block(is_fields, form=("flat", "interleave", "swap", "fold", "flip", "unbind", "heads"))
def reshaped(m: Layers, x: Tensor, form: str) -> Tensor:
    r, f, d = x.shape
    if form == "flat":
        return x.flatten(1)
    if form == "interleave":
        return x.reshape(r, d, f)
    if form == "swap":
        return x.transpose(1, 2)
    if form == "fold":
        return m.linear(d, 3)(x.reshape(-1, d)).relu().view(-1, f, 3)
    if form == "flip":
        return x.flip(1).roll(1, 2)
    if form == "unbind":
        return torch.stack(x.unbind(1)[::-1], 2)
    return x.view(r, f, 1, d).permute(2, 0, 1, 3).reshape(r, f * d)


@block(is_fields, form=("slice", "index", "masked", "narrow"))
def written(m: Layers, x: Tensor, form: str) -> Tensor:
    """Writes through slices."""
    y = x.clone()
    if form == "slice":
        y[:, 0] = y[:, -1] * 2
    elif form == "index":
        y[:, :, 0] += 1.5
    elif form == "masked":
        y.masked_fill_(m.constant([i % 2 == 0 for i in range(x.shape[1])]).view(1, -1, 1), 0.25)
    else:
        y.narrow(2, 0, 1).mul_(-1)
    return y


@block(is_float, is_float, op=("add", "mul", "sub", "maximum", "div"), fits=lambda x, y: x.shape == y.shape)
def pointwise(m: Layers, x: Tensor, y: Tensor, op: str) -> Tensor:
    return x / (y.square() + 1) if op == "div" else getattr(torch, op)(x, y)


@block(is_float, is_scalar)
def tempered(m: Layers, x: Tensor, scalar: Tensor) -> Tensor:
    return x / scalar


@block(is_float, act=("relu", "sigmoid", "tanh", "gelu", "silu", "prelu", "dropout", "square", "clamp", "softplus"))
def activation(m: Layers, x: Tensor, act: str) -> Tensor:
    if act == "prelu":
        return m.layer(nn.PReLU)(x)
    if act == "dropout":
        return m.layer(lambda: nn.Dropout(0.5))(x)
    if act == "square":
        return x.tanh().square()
    return x.clamp(-0.5, 0.75) if act == "clamp" else getattr(F, act)(x)


@block(is_float, form=("float", "double", "half"))
def cast(m: Layers, x: Tensor, form: str) -> Tensor:
    """There and back, as autocast regions leave it."""
    dtype = {"float": torch.float32, "double": torch.float64, "half": torch.bfloat16}[form]
    return x.to(dtype).tanh().to(m.dtype)


# ------------------------------------------------------------------------------------------------------ interactions


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


# ------------------------------------------------------------------------------------------------------ gates, towers


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


# ------------------------------------------------------------------------------------------------------ norms


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


# ------------------------------------------------------------------------------------------------------ attention


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
