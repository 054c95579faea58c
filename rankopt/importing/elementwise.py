"""Operators that compute each element for itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rankopt.importing.constants import Sizes, Value, integers, number, operand, tensor
from rankopt.importing.operators import Node, dtype_of, operator, sizes_operator

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}

_BINARY: dict[str, Callable[[Any, Any], Tensor]] = {
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}


@operator(*_UNARY)
def unary(node: Node, x: Tensor) -> Tensor:
    """torch has it under another name."""
    return _UNARY[node.op](x)


@operator(*_BINARY)
def binary(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """torch has it under another name."""
    return _BINARY[node.op](x, y)


@operator("Add", "Sub", "Mul", "Div", known=[0, 1])
def arithmetic(node: Node, left: Value, right: Value) -> Tensor:
    """A number of the file stays a number: `x * 0.5`."""
    x, y = tensor(left), operand(right)
    if number(left) is not None and isinstance(y, Tensor):
        return _arithmetic(node, operand(left), y)
    return _arithmetic(node, x, y)


def _arithmetic(node: Node, x: Any, y: Any) -> Tensor:
    if node.op == "Add":
        return x + y  # type: ignore[no-any-return]
    if node.op == "Sub":
        return x - y  # type: ignore[no-any-return]
    if node.op == "Mul":
        return x * y  # type: ignore[no-any-return]
    whole = not any(operand.is_floating_point() for operand in (x, y) if isinstance(operand, Tensor))
    return torch.div(x, y, rounding_mode="trunc") if whole else x / y


@operator("Mod")
def mod(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """The remainder has the sign of the divisor, with `fmod` that of the dividend."""
    return torch.fmod(x, y) if node.attribute("fmod", 0) else torch.remainder(x, y)


@operator("Pow", known=[1])
def power(_: Node, x: Tensor, exponent: Value) -> Tensor:
    """x ** y, of the element type of x."""
    given = number(exponent)
    if given is not None and given == int(given):
        return x ** int(given)
    return torch.pow(x, tensor(exponent) if given is None else given).to(x.dtype)


@operator("Min", "Max", "Sum", "Mean")
def variadic(node: Node, *xs: Tensor) -> Tensor:
    """Any number of operands, broadcast to each other."""
    if node.op in ("Min", "Max"):
        return reduce(torch.minimum if node.op == "Min" else torch.maximum, xs)
    total = reduce(torch.add, xs)
    return total / len(xs) if node.op == "Mean" else total


@operator("Clip", known=[1, 2])
def clip(_: Node, x: Tensor, low: Value | None = None, high: Value | None = None) -> Tensor:
    """Bounded from below, from above, or both."""
    bounds = [None if bound is None else operand(bound) for bound in (low, high)]
    if all(bound is None for bound in bounds):
        return x
    if any(isinstance(bound, Tensor) for bound in bounds):
        bounds = [None if bound is None else torch.as_tensor(bound, dtype=x.dtype) for bound in bounds]
    low_, high_ = bounds
    return torch.clamp(x, low_, high_)  # type: ignore[arg-type]  # both numbers, or both tensors


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    """alpha * x below zero."""
    return F.leaky_relu(x, node.attribute("alpha", 0.01))


@operator("PRelu")
def prelu(_: Node, x: Tensor, slope: Tensor) -> Tensor:
    """slope * x below zero; the slope is broadcast from the last dim on."""
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    """alpha * (exp(x) - 1) below zero."""
    return F.elu(x, node.attribute("alpha", 1.0))


@operator("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    """gamma * elu(x, alpha)."""
    alpha = node.attribute("alpha", 1.67326319217681884765625)
    gamma: float = node.attribute("gamma", 1.05070102214813232421875)
    return F.elu(x, alpha) * gamma


@operator("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    """alpha * (exp(x / alpha) - 1) below zero."""
    return F.celu(x, node.attribute("alpha", 1.0))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    """x above alpha, else zero."""
    return torch.where(x > node.attribute("alpha", 1.0), x, torch.zeros_like(x))


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """alpha * x + beta, between 0 and 1."""
    return torch.clamp(x * node.attribute("alpha", 0.2) + node.attribute("beta", 0.5), 0.0, 1.0)


@operator("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    """By erf, or by tanh where it says so."""
    return F.gelu(x, approximate=node.attribute("approximate", b"none").decode())


@operator("IsInf")
def is_inf(node: Node, x: Tensor) -> Tensor:
    """Of the signs that are asked for."""
    positive, negative = node.attribute("detect_positive", 1), node.attribute("detect_negative", 1)
    if positive and negative:
        return torch.isinf(x)
    infinite = float("inf") if positive else float("-inf")
    return x == infinite if positive or negative else torch.zeros_like(x, dtype=torch.bool)


@operator("Where")
def where(_: Node, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition holds, else y."""
    return torch.where(condition, x, y)


@operator("Cast", known=[0])
def cast(node: Node, x: Value) -> Value:
    """To another element type. Sizes stay sizes where they stay integers."""
    dtype = dtype_of(node.attribute("to"))
    if dtype is None:
        raise ValueError(f"torch has no element type for ONNX's {node.attribute('to')}")
    if isinstance(x, Sizes) and dtype in (torch.int32, torch.int64):
        return x
    return tensor(x).to(dtype)


@operator("CastLike")
def cast_like(_: Node, x: Tensor, like: Tensor) -> Tensor:
    """To the element type of another tensor."""
    return x.to(like.dtype)


@operator("Identity", known=[0])
def identity(_: Node, x: Value) -> Value:
    """The same."""
    return x


@operator("Dropout", known=[1, 2])
def dropout(node: Node, x: Tensor, _: Value | None = None, training: Value | None = None) -> tuple[Tensor, ...]:
    """Nothing, when a model is served; the mask, if anybody asks, is true everywhere."""
    if training is not None and integers(training) != [0]:
        raise ValueError("it is exported in training mode")
    return x, torch.ones_like(x, dtype=torch.bool)


# ------------------------------------------------------------------------------------------------------ of sizes


def _paired(x: Sizes, y: Sizes) -> list[tuple[Any, Any]] | None:
    """Two vectors item by item, of which one may have a single item; None where that does not fit."""
    count = max(len(x.items), len(y.items))
    columns = [sizes.items * count if len(sizes.items) == 1 else sizes.items for sizes in (x, y)]
    return list(zip(*columns, strict=True)) if all(len(column) == count for column in columns) else None


def _combined(x: Sizes, y: Sizes, compute: Callable[[Any, Any], Any]) -> Sizes | None:
    pairs = _paired(x, y)
    return None if pairs is None else Sizes(tuple(compute(a, b) for a, b in pairs), x.is_scalar and y.is_scalar)


def _divided(a: Any, b: Any) -> Any:
    """Integer division as ONNX has it, towards zero; sizes are not negative."""
    if isinstance(a, int) and isinstance(b, int) and (a < 0) != (b < 0):
        return -(abs(a) // abs(b))
    return a // b


def _equal(a: Any, b: Any) -> bool:
    """Whether sizes are equal for every number of rows."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return bool(statically_known_true(a == b))


_OF_SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divided,
    "Mod": lambda a, b: a % b,
    "Equal": _equal,
}


@sizes_operator(*_OF_SIZES)
def sizes_binary(node: Node, x: Sizes, y: Sizes) -> Sizes | None:
    """Arithmetic of sizes."""
    return _combined(x, y, _OF_SIZES[node.op])


@sizes_operator("Where")
def sizes_where(_: Node, condition: Sizes, x: Sizes, y: Sizes) -> Sizes | None:
    """The pattern by which exporters keep a dim of an expand: where(shape == -1, 1, shape)."""
    count = max(len(sizes.items) for sizes in (condition, x, y))
    columns = [sizes.items * count if len(sizes.items) == 1 else sizes.items for sizes in (condition, x, y)]
    if any(len(column) != count for column in columns):
        return None
    items = tuple(a if holds else b for holds, a, b in zip(*columns, strict=True))
    return Sizes(items, all(sizes.is_scalar for sizes in (condition, x, y)))
