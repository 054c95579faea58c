"""Normalisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rankopt.importing.operators import Node, operator


@operator("LayerNormalization")
def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over the dims from `axis` on."""
    if len([name for name in node.outputs if name]) > 1:
        raise ValueError("its mean and deviation are read")
    sizes = x.shape[node.attribute("axis", -1) :]
    bias = None if bias is None else bias.expand(sizes)
    return F.layer_norm(x, sizes, scale.expand(sizes), bias, node.attribute("epsilon", 1e-5))


@operator("RMSNormalization")
def rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    """By the root of the mean square over the dims from `axis` on."""
    dims = list(range(node.attribute("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt((x * x).mean(dims, True) + node.attribute("epsilon", 1e-5)) * scale


@operator("BatchNormalization")
def batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """By stored moments, as a model is served."""
    if node.attribute("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise ValueError("it is exported in training mode")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, node.attribute("epsilon", 1e-5))


@operator("LpNormalization")
def lp_norm(node: Node, x: Tensor) -> Tensor:
    """To length one along a dim; a vector of length zero stays."""
    axis = node.attribute("axis", -1)
    length = x.abs().sum(axis, True) if node.attribute("p", 2) == 1 else (x * x).sum(axis, True).sqrt()
    return torch.where(length == 0, torch.zeros_like(x), x / length)
