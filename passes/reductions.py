"""Reductions and other ops that work along some dims and treat all others alike.

sum over cat(c, t) = sum(c) + sum(t);   g(expand(c), dim) = expand(g(c, dim)) for any op g along a dim that is not rows
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce as fold
from typing import Any

import torch

from rankopt import algebra, nesting
from rankopt import operands as ops
from rankopt.axes import ROW, Axis, Group
from rankopt.evaluate import force
from rankopt.expressions import Expr
from rankopt.operands import Operand, size_of
from rankopt.passes.elementwise import apply, to_dtype
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Cat, Node, Value, leaf
from rankopt.workspace import Workspace


def reduced_dims(x: Value, dim: int | Sequence[int] | None) -> list[int]:
    """The dims of a reduction, from the front; none named means all."""
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        chosen = list(range(x.ndim))
    else:
        chosen = sorted(x.dim(d) for d in ([dim] if isinstance(dim, int) else dim))
    if any(ROW in x.groups[d] for d in chosen):
        raise Refusal("rows are reduced")
    return chosen


def without(x: Value, chosen: Sequence[int], keepdim: bool) -> tuple[Group, ...]:
    """The groups of a reduced value."""
    return tuple(() if d in chosen else g for d, g in enumerate(x.groups) if keepdim or d not in chosen)


@rule(
    aten.sum.dim_IntList,
    aten.sum.default,
    law="sum(cat(c, t)) = sum(c) + sum(t); sum_i (sum_j a b) = sum_ij a b, pending",
)
def sum_(
    w: Workspace, x: Value, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None, **_: Any
) -> Value:
    """`sum(dim)`."""
    chosen = reduced_dims(x, dim)
    out = dtype or (x.dtype if x.dtype.is_floating_point else torch.int64)
    x = to_dtype(w, x, out)
    if not out.is_floating_point:
        return _along(w, x, chosen, keepdim, lambda t, d: w.program.reduce(aten.sum.dim_IntList, t, [d]))
    axes = [axis for d in chosen for axis in x.groups[d]]
    node = algebra.total(w, x.node, axes) if axes else x.node
    return Value(without(x, chosen, keepdim), node)


@rule(aten.mean.dim, aten.mean.default, law="mean = sum / count")
def mean(w: Workspace, x: Value, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Value:
    """`mean(dim)`."""
    count = math.prod(size for d in reduced_dims(x, dim) if isinstance(size := x.shape[d], int))
    if not count:
        raise Refusal("a dim has no elements")
    result = sum_(w, x, dim, keepdim, dtype)
    return Value(result.groups, algebra.scale(result.node, 1.0 / count))


def variance(w: Workspace, x: Value, dim: Any, correction: float, keepdim: bool) -> Value:
    """`sum (x - mean)^2 / (count - correction)`. Differences are evaluated first, or the large squares would cancel."""
    chosen = reduced_dims(x, dim)
    count = math.prod(size for d in chosen if isinstance(size := x.shape[d], int))
    if count <= correction:
        raise Refusal("a variance of too few elements")
    apart = apply(w, aten.sub.Tensor, x, mean(w, x, chosen, keepdim=True))
    total = sum_(w, apply(w, aten.square.default, apart), chosen, keepdim)
    return Value(total.groups, algebra.scale(total.node, 1.0 / (count - correction)))


@rule(aten.var.correction, law="var = sum (x - mean)^2 / (count - correction)")
def var(w: Workspace, x: Value, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Value:
    """`var(dim, correction=1)`."""
    return variance(w, x, dim, 1 if correction is None else correction, keepdim)


@rule(aten.var.dim, aten.var.default, law="var = sum (x - mean)^2 / (count - 1)")
def var_unbiased(w: Workspace, x: Value, *options: Any, unbiased: bool = True, keepdim: bool = False) -> Value:
    """`var(dim, unbiased=True)`."""
    dim, given, keepdim = _options(options, unbiased, keepdim)
    return variance(w, x, dim, float(given), keepdim)


@rule(aten.std.correction, law="std = sqrt(var)")
def std(w: Workspace, x: Value, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Value:
    """`std(dim, correction=1)`."""
    return apply(w, aten.sqrt.default, var(w, x, dim, correction=correction, keepdim=keepdim))


@rule(aten.std.dim, aten.std.default, law="std = sqrt(var)")
def std_unbiased(w: Workspace, x: Value, *options: Any, unbiased: bool = True, keepdim: bool = False) -> Value:
    """`std(dim, unbiased=True)`."""
    return apply(w, aten.sqrt.default, var_unbiased(w, x, *options, unbiased=unbiased, keepdim=keepdim))


def _options(options: Sequence[Any], unbiased: bool, keepdim: bool) -> tuple[Any, bool, bool]:
    """`(dim, unbiased, keepdim)` of calls `f(unbiased)` and `f(dim, unbiased, keepdim)`."""
    if len(options) == 1 and isinstance(options[0], bool):
        return None, options[0], keepdim
    return (*options, *(None, unbiased, keepdim)[len(options) :])


# ------------------------------------------------------------------------------------------------------ maximum


def extremum(w: Workspace, x: Value, chosen: Sequence[int], keepdim: bool, target: Any, join: Any) -> Value:
    """The maximum of a Cat is the maximum of its parts' maxima."""
    axes = [axis for d in chosen for axis in x.groups[d]]

    def law(node: Node, along: Sequence[Axis]) -> Node:
        if not isinstance(node, Cat) or node.axis not in along:
            return leaf(ops.reduce(w, target, force(w, node), along))
        rest = [axis for axis in along if axis is not node.axis]
        found = [law(part.node, [*part.axes, *rest]) for part in node.parts]
        return fold(lambda a, b: algebra.pointwise(w, lambda s, t: w.program.pointwise(join, s, t), [a, b]), found)

    node = nesting.within(w, x.node, axes, lambda inner: law(inner, axes))
    return Value(without(x, chosen, keepdim), node)


@rule(aten.amax.default, law="max(cat(c, t)) = max(max(c), max(t)), likewise min")
def amax(w: Workspace, x: Value, dim: Any = (), keepdim: bool = False) -> Value:
    """`amax(dim)`."""
    return extremum(w, x, reduced_dims(x, dim), keepdim, aten.amax.default, aten.maximum.default)


@rule(aten.amin.default, law="min over cat(c, t) = min(min(c), min(t))")
def amin(w: Workspace, x: Value, dim: Any = (), keepdim: bool = False) -> Value:
    """`amin(dim)`."""
    return extremum(w, x, reduced_dims(x, dim), keepdim, aten.amin.default, aten.minimum.default)


# ------------------------------------------------------------------------------------------------------ along one dim


def _along(w: Workspace, x: Value, chosen: Sequence[int], keepdim: bool, build: Callable[[Expr, int], Expr]) -> Value:
    """`build(tensor, dim)` on the value with all of `chosen` as one dim, which it reduces."""
    if not any(x.groups[d] for d in chosen):
        return Value(without(x, chosen, keepdim), x.node)
    operand, at = _dense(w, x, chosen)
    tensor = build(operand.tensor, at)
    return Value(without(x, chosen, keepdim), leaf(Operand(tensor, (*operand.axes[:at], *operand.axes[at + 1 :]))))


def _dense(w: Workspace, x: Value, chosen: Sequence[int]) -> tuple[Operand, int]:
    """The value as a tensor in which the axes of `chosen` are one physical dim, the last."""
    inner = tuple(axis for d in chosen for axis in x.groups[d])
    operand = force(w, x.node)
    outer = tuple(axis for axis in operand.axes if axis not in inner)
    tensor = ops.expand(w, operand, (*outer, *inner))
    merged = w.axes.fresh(math.prod(axis.size for axis in inner))
    tensor = w.program.view(tensor, (*(size_of(axis) for axis in outer), merged.size))
    return Operand(tensor, (*outer, merged)), len(outer)


REDUCING: tuple[Any, ...] = (aten.argmax.default, aten.argmin.default, aten.prod.dim_int, aten.any.dim, aten.all.dim)
"""Ops `f(x, dim, keepdim)` that reduce one dim and return one tensor."""

KEEPING: tuple[Any, ...] = (aten.cumsum.default, aten.cumprod.default, aten.log_softmax.int, aten.logcumsumexp.default)
"""Ops `f(x, dim)` that keep the dim."""


def _one_dim(x: Value, dim: Any) -> list[int]:
    if not isinstance(dim, int):
        raise Refusal("not one dim")
    return reduced_dims(x, dim)


for _target in REDUCING:

    def _reducing(w: Workspace, x: Value, dim: Any = None, keepdim: bool = False, *, _target: Any = _target) -> Value:
        """Along one dim; all others are treated alike."""
        chosen = _one_dim(x, dim)
        if not x.groups[chosen[0]]:
            raise Refusal("the dim has one element")
        dtype = _target(torch.empty(2, dtype=x.dtype, device="meta"), 0).dtype
        drop: Callable[[Expr, int], tuple[Any, ...]] = lambda t, d: (*t.dims[:d], *t.dims[d + 1 :])  # noqa: E731
        call: Callable[[Expr, int], Expr] = lambda t, d: w.program.call(_target, t, d, shape=drop(t, d), out=dtype)  # noqa: E731
        return _along(w, x, chosen, keepdim, call)

    _reducing.__name__ = "reducing"
    rule(_target, law="g(expand(c), dim) = expand(g(c, dim))")(_reducing)


for _target in KEEPING:

    def _keeping(w: Workspace, x: Value, dim: int, dtype: Any = None, *, _target: Any = _target) -> Value:
        """Along one dim; all others are treated alike."""
        chosen = _one_dim(x, dim)
        if not x.groups[chosen[0]] or dtype is not None:
            raise Refusal("the dim has one element, or the type changes")
        operand, at = _dense(w, x, chosen)
        out = _target(torch.empty(2, dtype=x.dtype, device="meta"), 0).dtype
        tensor = w.program.call(_target, operand.tensor, at, shape=operand.tensor.dims, out=out)
        groups = tuple((operand.axes[at],) if d in chosen else g for d, g in enumerate(x.groups))
        return Value(groups, leaf(Operand(tensor, operand.axes)))

    _keeping.__name__ = "keeping"
    rule(_target, law="g(expand(c), dim) = expand(g(c, dim))")(_keeping)
