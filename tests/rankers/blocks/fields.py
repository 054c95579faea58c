"""Fields: joined, reshaped and written to; what is done element by element."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rankers.blocks.registry import block, is_fields, is_float, is_scalar, is_vector
from rankers.model import Layers
from torch import Tensor, nn


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
