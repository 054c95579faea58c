"""Softmax over an axis that holds context and target elements.

    m_c = max s_c, m = max(m_c, max s_t),   Z = e^(m_c - m) sum e^(s_c - m_c) + sum e^(s_t - m)
    softmax = [ e^(s_c - m_c) * (e^(m_c - m) / Z) ; e^(s_t - m) / Z ]                   (log-sum-exp merge)

Maximum, exponentials and sum of a rank-2 part are computed once, and the part stays a product of a rank-2 tensor and
one number per candidate, so that the product with the values of an attention still splits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rankopt import nesting
from rankopt import operands as ops
from rankopt.axes import ROW, Axis, Group
from rankopt.evaluate import force, join
from rankopt.expressions import Expr
from rankopt.operands import Operand
from rankopt.passes.elementwise import to_dtype
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.structure import concatenate
from rankopt.values import Cat, Node, Part, Sum, Term, Value, leaf
from rankopt.workspace import Workspace

MERGE = "softmax([s_c; s_t]) = [e^(s_c - m_c) e^(m_c - m) / Z; e^(s_t - m) / Z], m = max(m_c, max s_t)"
"""The law of all three."""


@rule(aten.softmax.int, law=MERGE)
def softmax(w: Workspace, x: Value, dim: int, dtype: torch.dtype | None = None) -> Value:
    """`softmax(dim)`; a fully masked row gives NaN, as in torch."""
    return over(w, to_dtype(w, x, dtype or x.dtype), dim, safe=False)


@rule(aten._softmax.default, law=MERGE)
def softmax_decomposed(w: Workspace, x: Value, dim: int, half_to_float: bool) -> Value:
    """The form that softmax has after decomposition."""
    if half_to_float:
        raise Refusal("a softmax that changes the type")
    return over(w, x, dim, safe=False)


@rule(aten._safe_softmax.default, law=MERGE)
def safe_softmax(w: Workspace, x: Value, dim: int, dtype: torch.dtype | None = None) -> Value:
    """The softmax of attention: a fully masked row gives zeros."""
    return over(w, to_dtype(w, x, dtype or x.dtype), dim, safe=True)


def over(w: Workspace, x: Value, dim: int, *, safe: bool) -> Value:
    """Softmax of a value over one of its dims."""
    axes = x.groups[x.dim(dim)] if x.ndim else ()
    if ROW in axes:
        raise Refusal("softmax over rows")
    if not x.dtype.is_floating_point or not axes:
        raise Refusal("softmax over one element, or of integers")
    return Value(x.groups, nesting.within(w, x.node, axes, lambda node: _merge(w, node, axes, safe)))


def _pieces(node: Node, axes: Group) -> list[tuple[Node, Group]]:
    """The parts of a node, each with the axes over which it is normalised."""
    if not isinstance(node, Cat):
        return [(node, axes)]
    pieces: list[tuple[Node, Group]] = []
    for part in node.parts:
        inner = tuple(a for axis in axes for a in (part.axes if axis is node.axis else (axis,)))
        pieces.extend(_pieces(part.node, inner))
    return pieces


def _merge(w: Workspace, node: Node, axes: Group, safe: bool) -> Node:
    pieces = _pieces(node, axes)
    ranks = {piece.has_rows for piece, _ in pieces}
    if len(ranks) == 1 and (whole := _directly(w, node, axes, safe)) is not None:
        return whole
    scores = [force(w, piece) for piece, _ in pieces]
    maxima = [_maximum(w, score, inner) for score, (_, inner) in zip(scores, pieces, strict=True)]
    top = maxima[0]
    for other in maxima[1:]:
        top = ops.pointwise(w, lambda a, b: w.program.pointwise(aten.maximum.default, a, b), [top, other])
    results: list[tuple[Operand, Operand | None]] = []
    total: Operand | None = None
    for score, own, (_, inner) in zip(scores, maxima, pieces, strict=True):
        weight = None if score.has_rows or not top.has_rows else _exp_difference(w, own, top)
        exps = _exp_difference(w, score, top if weight is None else own)
        mass = _mass(w, exps, inner)
        if weight is not None:
            mass = ops.pointwise(w, w.program.mul, [mass, weight])
        total = mass if total is None else ops.pointwise(w, w.program.add, [total, mass])
        results.append((exps, weight))
    assert total is not None
    inverse = _inverse(w, total, safe)
    nodes: list[Node] = []
    for exps, weight in results:
        if weight is None:
            nodes.append(leaf(ops.pointwise(w, w.program.mul, [exps, inverse])))
        else:
            nodes.append(Sum((Term((exps, ops.pointwise(w, w.program.mul, [weight, inverse]))),)))
    return nesting.replace_leaves(node, nodes)


def _directly(w: Workspace, node: Node, axes: Group, safe: bool) -> Node | None:
    """Torch's own softmax, where one tensor holds the whole axis. The order of its places does not matter."""
    if len(axes) != 1:
        return None
    axis, positions = axes[0], None
    if isinstance(node, Cat):
        axis = w.axes.fresh(node.axis.size)
        operand, positions = join(w, node, axis)
    else:
        operand = force(w, node)
    if axis not in operand.axes:
        return None
    target = aten._safe_softmax.default if safe else aten.softmax.int
    at = operand.axes.index(axis)
    tensor = w.program.call(target, operand.tensor, at, shape=operand.tensor.dims, out=operand.dtype)
    w.layouts.normalise(operand.tensor.serial, operand.axes, axis, w.candidates)
    w.layouts.derive(tensor.serial, operand.axes, operand.tensor.serial, operand.axes)
    result = leaf(Operand(tensor, operand.axes))
    return result if positions is None else concatenate(w, axes[0], [Part(positions, (axis,), result)])


def _maximum(w: Workspace, score: Operand, axes: Sequence[Axis]) -> Operand:
    """The maximum, at least the smallest finite number: a fully masked part must not give NaN."""
    top = ops.reduce(w, aten.amax.default, score, axes)
    least = torch.finfo(score.dtype).min
    return Operand(w.program.pointwise(aten.clamp_min.default, top.tensor, least), top.axes)


def _exp_difference(w: Workspace, x: Operand, y: Operand) -> Operand:
    def build(a: Expr, b: Expr) -> Expr:
        return w.program.pointwise(aten.exp.default, w.program.sub(a, b))

    return ops.pointwise(w, build, [x, y])


def _mass(w: Workspace, exps: Operand, axes: Sequence[Axis]) -> Operand:
    """The sum of the exponentials; an axis along which they are constant multiplies it."""
    mass = ops.reduce(w, aten.sum.dim_IntList, exps, axes)
    times = math.prod(axis.size for axis in axes if axis not in exps.axes)
    return Operand(w.program.scale(mass.tensor, float(times)), mass.axes)


def _inverse(w: Workspace, total: Operand, safe: bool) -> Operand:
    inverse = w.program.pointwise(aten.reciprocal.default, total.tensor)
    if safe:
        empty = w.program.pointwise(aten.eq.Scalar, total.tensor, 0, out=torch.bool)
        inverse = w.program.pointwise(aten.masked_fill.Scalar, inverse, empty, 0.0, out=total.dtype)
    return Operand(inverse, total.axes)
