"""Matrix products and convolutions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rankopt.importing.operators import Node, operator


@operator("MatMul")
def matmul(_: Node, x: Tensor, y: Tensor) -> Tensor:
    """As numpy has it."""
    return torch.matmul(x, y)


@operator("Gemm")
def gemm(node: Node, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """alpha * x y + beta * bias; the usual one is a linear layer."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    x = x.t() if node.attribute("transA", 0) else x
    transposed = bool(node.attribute("transB", 0))
    if transposed and alpha == 1 and (bias is None or (beta == 1 and bias.shape == y.shape[:1])):
        return F.linear(x, y, bias)
    result = torch.matmul(x, y.t() if transposed else y)
    result = result if alpha == 1 else result * alpha
    if bias is None:
        return result
    return result + (bias if beta == 1 else bias * beta)


@operator("Einsum")
def einsum(node: Node, *xs: Tensor) -> Tensor:
    """By the equation."""
    return torch.einsum(node.attribute("equation").decode().replace(" ", ""), *xs)


@operator("Conv")
def convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over one, two or three dims."""
    ndim = x.dim() - 2
    convolve = (F.conv1d, F.conv2d, F.conv3d)[ndim - 1]
    strides, dilations = node.attribute("strides", [1] * ndim), node.attribute("dilations", [1] * ndim)
    before, after = _padding(node, x, weight, strides, dilations)
    if before != after:
        flat = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
        x, before = F.pad(x, flat), [0] * ndim
    result: Tensor = convolve(x, weight, bias, strides, before, dilations, node.attribute("group", 1))
    return result


def _padding(
    node: Node, x: Tensor, weight: Tensor, strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """How much is padded before and after, per dim: as given, or so much that sizes divide by the strides."""
    ndim = len(strides)
    mode = node.attribute("auto_pad", b"NOTSET").decode()
    if mode in ("NOTSET", "VALID"):
        pads = node.attribute("pads", [0] * 2 * ndim) if mode == "NOTSET" else [0] * 2 * ndim
        return list(pads[:ndim]), list(pads[ndim:])
    before, after = [], []
    for size, kernel, stride, dilation in zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before, after
