"""Elementwise functions and arithmetic.

f(expand(c)) = expand(f(c));   f(cat(a, b)) = cat(f(a), f(b));   sums and products of floats stay pending
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree

from rankopt import algebra, dims
from rankopt.expressions import Expr
from rankopt.operands import Operand
from rankopt.program import aten
from rankopt.rolling import regrid
from rankopt.rules import Refusal, rule
from rankopt.values import Node, Value, leaf
from rankopt.workspace import Workspace

Number = int | float | bool

FUNCTIONS: tuple[Any, ...] = (
    aten.relu.default, aten.sigmoid.default, aten.tanh.default, aten.gelu.default, aten.silu.default, aten.exp.default,
    aten.exp2.default, aten.expm1.default, aten.log.default, aten.log1p.default, aten.log2.default, aten.sqrt.default,
    aten.rsqrt.default, aten.abs.default, aten.reciprocal.default, aten.leaky_relu.default, aten.elu.default,
    aten.selu.default, aten.celu.default, aten.hardtanh.default, aten.hardsigmoid.default, aten.hardswish.default,
    aten.mish.default, aten.softplus.default, aten.log_sigmoid.default, aten.relu6.default, aten.threshold.default,
    aten.clamp.default, aten.clamp.Tensor, aten.clamp_min.default, aten.clamp_max.default, aten.erf.default,
    aten.sign.default, aten.sgn.default, aten.sin.default, aten.cos.default, aten.sinh.default, aten.cosh.default,
    aten.floor.default, aten.ceil.default, aten.round.default, aten.trunc.default, aten.frac.default,
    aten.logit.default, aten.isnan.default, aten.isinf.default, aten.isfinite.default, aten.nan_to_num.default,
    aten.logical_not.default, aten.bitwise_not.default, aten._prelu_kernel.default,
    aten.eq.Scalar, aten.ne.Scalar, aten.lt.Scalar, aten.le.Scalar, aten.gt.Scalar, aten.ge.Scalar,
    aten.eq.Tensor, aten.ne.Tensor, aten.lt.Tensor, aten.le.Tensor, aten.gt.Tensor, aten.ge.Tensor,
    aten.logical_and.default, aten.logical_or.default, aten.logical_xor.default, aten.bitwise_and.Tensor,
    aten.bitwise_or.Tensor, aten.bitwise_xor.Tensor, aten.__and__.Tensor, aten.__or__.Tensor, aten.__xor__.Tensor,
    aten.__and__.Scalar, aten.__or__.Scalar, aten.__xor__.Scalar, aten.maximum.default, aten.minimum.default,
    aten.pow.Tensor_Tensor, aten.pow.Scalar, aten.fmod.Scalar, aten.fmod.Tensor, aten.remainder.Scalar,
    aten.remainder.Tensor,
    aten.floor_divide.default, aten.floor_divide.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode, aten.atan.default,
    aten.atan2.default, aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar,
    aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.lerp.Scalar, aten.lerp.Tensor, aten.addcmul.default,
    aten.addcdiv.default, aten.bitwise_left_shift.Tensor_Scalar, aten.bitwise_right_shift.Tensor_Scalar,
    aten.xlogy.Tensor, aten.rad2deg.default, aten.deg2rad.default, aten.softshrink.default, aten.hardshrink.default,
)  # fmt: skip
"""Ops that compute each element of the result from the elements at the same place."""

LARGE = 1e3
"""Sums are evaluated before they are multiplied by larger numbers: in `s + (1 - mask) * -1e9` the two large terms must
cancel before the score is added, or its digits are lost."""

IGNORED = ("device", "layout", "pin_memory", "non_blocking", "memory_format", "copy")
"""Options of casts that say where a tensor lives, not what it holds."""


CONDITIONAL = frozenset(
    {
        aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar,
        aten.masked_fill.Tensor, aten.masked_fill.Scalar,
    }
)  # fmt: skip
"""Ops of which a boolean operand is the condition, and stays boolean."""


def apply(w: Workspace, target: Any, *args: Any, **kwargs: Any) -> Value:
    """`target`, an elementwise op, on values and numbers."""
    args, kwargs = _promote(w, target, args, kwargs)
    values = [item for item in pytree.tree_leaves((args, kwargs), is_leaf=_is_value) if isinstance(item, Value)]
    out = result_dtype(target, args, kwargs)

    def build(*tensors: Expr) -> Expr:
        rest = iter(tensors)
        plug: Callable[[Any], Any] = lambda item: next(rest) if isinstance(item, Value) else item  # noqa: E731
        plain_args, plain_kwargs = pytree.tree_map(plug, (args, kwargs), is_leaf=_is_value)
        return w.program.pointwise(target, *plain_args, out=out, **plain_kwargs)

    return through(w, build, values)


def through(w: Workspace, build: Callable[..., Expr], values: Sequence[Value]) -> Value:
    """An elementwise function of several values, dims broadcast."""
    if len(values) == 1:
        return Value(values[0].groups, algebra.pointwise(w, build, [values[0].node]))
    nodes, groups = dims.unify(w, values)
    return Value(groups, algebra.pointwise(w, build, nodes))


def _is_value(item: Any) -> bool:
    return isinstance(item, Value)


def _stand_in(value: Value) -> torch.Tensor:
    return torch.empty((1,) * min(value.ndim, 1), dtype=value.dtype, device="meta")


def result_dtype(target: Any, args: Any, kwargs: Any) -> torch.dtype:
    """Element type that torch gives the result, asked of torch on tensors without data."""
    args, kwargs = pytree.tree_map(
        lambda item: _stand_in(item) if isinstance(item, Value) else item, (args, kwargs), is_leaf=_is_value
    )
    result: torch.Tensor = target(*args, **kwargs)
    return result.dtype


def _promote(
    w: Workspace, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Operands of one type. Torch promotes by the model's dims, which deferred operands no longer have."""
    values = [item for item in pytree.tree_leaves((args, kwargs), is_leaf=_is_value) if isinstance(item, Value)]
    if target in CONDITIONAL:
        values = [value for value in values if value.dtype != torch.bool]
    if len({value.dtype for value in values}) < 2:
        return args, kwargs
    dtype = common_dtype(values)
    chosen = {id(value) for value in values}
    cast: Callable[[Any], Any] = lambda item: to_dtype(w, item, dtype) if id(item) in chosen else item  # noqa: E731
    cast_args, cast_kwargs = pytree.tree_map(cast, (args, kwargs), is_leaf=_is_value)
    return cast_args, cast_kwargs


def common_dtype(values: Sequence[Value]) -> torch.dtype:
    """The type to which torch promotes `values`."""
    result = _stand_in(values[0])
    for value in values[1:]:
        result = torch.empty_like(result, dtype=torch.result_type(result, _stand_in(value)))
    return result.dtype


def to_dtype(w: Workspace, x: Value, dtype: torch.dtype) -> Value:
    """The value with another element type."""
    if x.dtype == dtype:
        return x
    cast = lambda t: w.program.pointwise(aten._to_copy.default, t, out=dtype, dtype=dtype)  # noqa: E731
    return Value(x.groups, algebra.pointwise(w, cast, [x.node]))


for _target in FUNCTIONS:

    def _function(w: Workspace, *args: Any, _target: Any = _target, **kwargs: Any) -> Value:
        """Elementwise function: through a Cat part by part; a pending sum is evaluated first."""
        return apply(w, _target, *args, **kwargs)

    _function.__name__ = "function"
    rule(_target, law="f(expand(c)) = expand(f(c)), f(cat(a, b)) = cat(f(a), f(b))")(_function)


@rule(
    aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default, aten.to.other,
    law="cast(expand(c)) = expand(cast(c)), cast(cat(a, b)) = cat(cast(a), cast(b))",
)  # fmt: skip
def cast(w: Workspace, x: Value, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Value:
    """`x.float()`, `x.long()`, `x.to(other)`; to the same type it is nothing."""
    for arg in args:
        dtype = arg if isinstance(arg, torch.dtype) else arg.dtype if isinstance(arg, Value) else dtype
    return to_dtype(w, x, dtype or x.dtype)


# ------------------------------------------------------------------------------------------------------ arithmetic


@cache
def _is_float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def number(w: Workspace, value: Number, dtype: torch.dtype) -> Node:
    """A constant, which varies along nothing."""
    return leaf(Operand(w.program.number(value, dtype), ()))


def _pair(w: Workspace, x: Value, y: Value) -> tuple[list[Node], tuple[Any, ...], bool]:
    """Unified nodes of one type, and whether the algebra of deferred sums applies (floats only)."""
    dtype = common_dtype([x, y])
    nodes, groups = dims.unify(w, [to_dtype(w, x, dtype), to_dtype(w, y, dtype)])
    return nodes, groups, _is_float(dtype)


@rule(aten.add.Tensor, aten.add.Scalar, law="(a + b) + c = a + b + c, term by term, pending")
def add(w: Workspace, x: Value | Number, y: Value | Number, alpha: Number = 1) -> Value:
    """`x + alpha * y`."""
    if not isinstance(x, Value):
        if not isinstance(y, Value):
            raise Refusal("no tensor operand")
        if alpha != 1:
            y = mul(w, y, alpha)
        return add(w, y, x)
    if not isinstance(y, Value):
        if not _is_float(x.dtype) or isinstance(y, complex):
            return apply(w, aten.add.Scalar, x, y, alpha)
        if y == 0:  # as in sum([x, ...])
            return x
        return Value(x.groups, algebra.add(w, x.node, number(w, y * alpha, x.dtype)))
    nodes, groups, deferred = _pair(w, x, y)
    if not deferred:
        scaled: dict[str, Any] = {} if alpha == 1 else {"alpha": alpha}
        build = lambda a, b: w.program.pointwise(aten.add.Tensor, a, b, **scaled)  # noqa: E731
        return Value(groups, algebra.pointwise(w, build, nodes))
    return Value(groups, algebra.add(w, nodes[0], algebra.scale(nodes[1], float(alpha))))


@rule(aten.sub.Tensor, aten.sub.Scalar, law="x - y = x + (-1) y, term by term, pending")
def sub(w: Workspace, x: Value | Number, y: Value | Number, alpha: Number = 1) -> Value:
    """`x - alpha * y`."""
    return add(w, x, y, -alpha)


@rule(aten.rsub.Scalar, aten.rsub.Tensor, law="rsub(x, y) = y + (-1) x, term by term, pending")
def rsub(w: Workspace, x: Value, y: Value | Number, alpha: Number = 1) -> Value:
    """`y - alpha * x`."""
    return add(w, mul(w, x, -alpha), y)


@rule(aten.neg.default, law="-x = -1 * x, pending")
def neg(w: Workspace, x: Value) -> Value:
    """`-x`."""
    return mul(w, x, -1)


@rule(aten.mul.Tensor, aten.mul.Scalar, law="(a + b) c = a c + b c, pending")
def mul(w: Workspace, x: Value | Number, y: Value | Number) -> Value:
    """`x * y`."""
    if not isinstance(x, Value):
        x, y = y, x
    if not isinstance(x, Value):
        raise Refusal("no tensor operand")
    if not isinstance(y, Value):
        if not _is_float(x.dtype) or isinstance(y, complex) or abs(y) > LARGE:
            return apply(w, aten.mul.Scalar, x, y)
        return Value(x.groups, algebra.scale(x.node, float(y)))
    nodes, groups, deferred = _pair(w, x, y)
    if not deferred:
        return Value(groups, algebra.pointwise(w, lambda a, b: w.program.pointwise(aten.mul.Tensor, a, b), nodes))
    return Value(groups, regrid(w, algebra.mul(w, nodes[0], nodes[1])))


@rule(aten.div.Tensor, aten.div.Scalar, law="x / n = (1 / n) x, pending; x / y elementwise")
def div(w: Workspace, x: Value | Number, y: Value | Number) -> Value:
    """`x / y`."""
    if isinstance(x, Value) and not isinstance(y, Value) and _is_float(x.dtype) and y != 0:
        return Value(x.groups, algebra.scale(x.node, 1.0 / y))
    target = aten.div.Tensor if isinstance(y, Value) else aten.div.Scalar
    return apply(w, target, x, y)


@rule(aten.square.default, law="x^2 = x x")
def square(w: Workspace, x: Value) -> Value:
    """`x * x`, so that the square of a sum still distributes."""
    return mul(w, x, x)


@rule(aten.pow.Tensor_Scalar, law="x^2 = x x")
def power(w: Workspace, x: Value, exponent: Number) -> Value:
    """Squares distribute; other powers are elementwise."""
    if exponent == 2 and _is_float(x.dtype):
        return mul(w, x, x)
    if exponent == 1 and _is_float(x.dtype):
        return x
    return apply(w, aten.pow.Tensor_Scalar, x, exponent)
