"""Norms.

Layer norm over [x_c; x_t]: partial means and second moments are joined by Chan's formula; the context part stays

    r_n * g (x_c - mean_c) + g (mean_c - mean_n) r_n + b,        r_n = 1 / sqrt(var_n + eps)

centred on its own mean, so that the next linear layer still splits and nothing cancels. A product with candidates, such
as `C y_n`, may stay one: r_n g (C y_n) - r_n g mean_n + b. Only the moments need its values, and the next layer folds
`W C`. Batch norm in eval mode is affine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankopt import algebra, dims, moves, nesting
from rankopt import operands as ops
from rankopt.axes import ROW, Group
from rankopt.evaluate import force
from rankopt.expressions import Expr
from rankopt.operands import Operand
from rankopt.passes.elementwise import add, mul
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Cat, Node, Part, Sum, Term, Value, freshen, leaf
from rankopt.workspace import Workspace


@rule(
    aten.layer_norm.default,
    law="M2([c; t]) = M2(c) + M2(t) + (mean_c - mean_t)^2 n_c n_t / n (Chan), then affine",
)
def layer_norm(
    w: Workspace,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Value:
    """Layer norm over the last dims."""
    chosen = list(range(x.ndim - len(shape), x.ndim))
    if any(ROW in x.groups[d] for d in chosen):
        raise Refusal("rows are normalised")
    parameters: list[Node | None] = []
    for parameter in (weight, bias):
        if parameter is None:
            parameters.append(None)
            continue
        own = freshen(w, parameter)
        for i, d in enumerate(chosen):
            if x.groups[d]:
                x, own = dims.refine(w, x, d, own, i)
        parameters.append(dims.renamed(own, [x.groups[d] for d in chosen]))
    # refining for the bias may have split axes that the weight was aligned to before: align it again
    if weight is not None and bias is not None:
        parameters[0] = _align(w, x, weight, chosen)
    axes = tuple(axis for d in chosen for axis in x.groups[d])
    if not axes:
        raise Refusal("a norm over one element")
    node = _hoisted(w, x.node, axes, parameters, eps)
    return Value(x.groups, node)


@rule(
    aten.native_layer_norm.default,
    law="M2([c; t]) = M2(c) + M2(t) + (mean_c - mean_t)^2 n_c n_t / n (Chan), then affine",
)
def layer_norm_decomposed(
    w: Workspace, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, None, None]:
    """The form that layer norm has after decomposition; its moments are for the backward pass."""
    return layer_norm(w, x, shape, weight, bias, eps), None, None


def _align(w: Workspace, x: Value, parameter: Value, chosen: Sequence[int]) -> Node:
    own = freshen(w, parameter)
    for i, d in enumerate(chosen):
        if x.groups[d]:
            _, own = dims.refine(w, x, d, own, i)
    return dims.renamed(own, [x.groups[d] for d in chosen])


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the normalised axes: its values, its own axes, count, mean and sum of squares about the mean.

    `pending`: the products that the values are of, where a linear layer behind the norm may fold them.
    """

    operand: Operand
    pending: Sum | None
    weight: Node | None
    bias: Node | None
    count: int
    mean: Operand
    squares: Operand


def _hoisted(w: Workspace, node: Node, axes: Group, parameters: Sequence[Node | None], eps: float) -> Node:
    node = nesting.hoist(w, node, axes)
    if isinstance(node, Cat) and node.axis not in axes:
        inner = [Part(p.positions, p.axes, _hoisted(w, p.node, axes, parameters, eps)) for p in node.parts]
        return Cat(node.axis, tuple(inner))
    if not _stays_pending(w, node) and (whole := _directly(w, node, axes, parameters, eps)) is not None:
        return whole
    pieces = _pieces(w, node, axes, parameters)
    count = sum(piece.count for piece in pieces)
    mean = _weighted(w, [(piece.mean, piece.count / count) for piece in pieces])
    moments = [_second_moment(w, piece, mean) for piece in pieces]
    variance = _weighted(w, [(moment, 1.0 / count) for moment in moments])
    scale = Operand(_inverse_root(w, variance.tensor, eps), variance.axes)
    if len(pieces) == 1 and pieces[0].pending is not None:
        whole = _directly(w, leaf(pieces[0].operand), axes, parameters, eps)
        if whole is not None:
            return _normalised_products(w, pieces[0], mean, scale, force(w, whole))
    results = [_normalise(w, piece, mean, scale) for piece in pieces]
    return nesting.replace_leaves(node, results)


def _stays_pending(w: Workspace, node: Node) -> bool:
    """Whether products with candidates are kept, in a type that can bear to centre them later."""
    if isinstance(node, Cat):
        return any(_stays_pending(w, part.node) for part in node.parts)
    products = any(term.has_rows and len(term.operands) > 1 for term in node.terms)
    return w.policy.through_norms and node.operand is None and products and node.dtype.itemsize >= 4


def _directly(w: Workspace, node: Node, axes: Group, parameters: Sequence[Node | None], eps: float) -> Node | None:
    """Torch's own layer norm, where all parts have the same rank."""
    if isinstance(node, Cat) and len({part.node.has_rows for part in node.parts}) > 1:
        return None
    operand = force(w, node)
    if any(axis not in operand.axes for axis in axes):
        return None
    order = (*(axis for axis in operand.axes if axis not in axes), *axes)
    tensor = ops.arrange(w, operand, order)
    sizes = [axis.size for axis in axes]
    given = [None if p is None else ops.expand(w, force(w, p), axes) for p in parameters]
    return leaf(Operand(moves.layer_norm(w, tensor, sizes, *given, eps), order))


def _pieces(w: Workspace, node: Node, axes: Group, parameters: Sequence[Node | None]) -> list[_Piece]:
    if isinstance(node, Cat):
        found: list[_Piece] = []
        for part in node.parts:
            inner = tuple(a for axis in axes for a in (part.axes if axis is node.axis else (axis,)))
            own = [p if p is None else nesting.part_of(w, p, node.axis, part) for p in parameters]
            found.extend(_pieces(w, part.node, inner, own))
        return found
    pending = node if _stays_pending(w, node) else None
    # an evaluation of its own: the node must not count as evaluated, or nobody would fold it
    operand = force(w, node if pending is None else Sum(pending.terms, None, pending.known))
    count = math.prod(axis.size for axis in axes)
    present = math.prod(axis.size for axis in axes if axis in operand.axes)
    mean = ops.reduce(w, aten.mean.dim, operand, axes)
    centred = ops.pointwise(w, w.program.sub, [operand, mean])
    squares = ops.pointwise(w, w.program.mul, [centred, centred])
    summed = ops.reduce(w, aten.sum.dim_IntList, squares, axes)
    summed = Operand(w.program.scale(summed.tensor, count / present), summed.axes)
    return [_Piece(operand, pending, parameters[0], parameters[1], count, mean, summed)]


def _weighted(w: Workspace, items: Sequence[tuple[Operand, float]]) -> Operand:
    total: Operand | None = None
    for operand, factor in sorted(items, key=lambda item: item[0].has_rows):
        scaled = Operand(w.program.scale(operand.tensor, factor), operand.axes)
        total = scaled if total is None else ops.pointwise(w, w.program.add, [total, scaled])
    assert total is not None
    return total


def _second_moment(w: Workspace, piece: _Piece, mean: Operand) -> Operand:
    """Sum of squares about the common mean: `M_i + n_i (mean_i - mean)^2` (Chan, Golub, LeVeque 1983)."""
    shift = ops.pointwise(w, w.program.sub, [piece.mean, mean])
    square = ops.pointwise(w, w.program.mul, [shift, shift])
    moved = Operand(w.program.scale(square.tensor, float(piece.count)), square.axes)
    return ops.pointwise(w, w.program.add, [piece.squares, moved])


def _inverse_root(w: Workspace, variance: Expr, eps: float) -> Expr:
    return w.program.pointwise(aten.rsqrt.default, w.program.pointwise(aten.add.Scalar, variance, eps))


def _normalise(w: Workspace, piece: _Piece, mean: Operand, scale: Operand) -> Node:
    weight = None if piece.weight is None else force(w, piece.weight)
    bias = None if piece.bias is None else force(w, piece.bias)
    if piece.operand.has_rows or not scale.has_rows:
        result = ops.pointwise(w, w.program.sub, [piece.operand, mean])
        result = ops.pointwise(w, w.program.mul, [result, scale])
        if weight is not None:
            result = ops.pointwise(w, w.program.mul, [result, weight])
        if bias is not None:
            result = ops.pointwise(w, w.program.add, [result, bias])
        return leaf(result) if piece.pending is None else _normalised_products(w, piece, mean, scale, result)
    centred = ops.pointwise(w, w.program.sub, [piece.operand, piece.mean])
    if weight is not None:
        centred = ops.pointwise(w, w.program.mul, [centred, weight])
    shift = ops.pointwise(w, w.program.sub, [piece.mean, mean])
    shift = ops.pointwise(w, w.program.mul, [shift, scale])
    terms = [Term((centred, scale)), Term((shift,) if weight is None else (shift, weight))]
    if bias is not None:
        terms.append(Term((bias,)))
    return Sum(tuple(terms))


def _normalised_products(w: Workspace, piece: _Piece, mean: Operand, scale: Operand, value: Operand) -> Node:
    """The pending products, normalised: `x r g - mean r g + b`. Who evaluates them takes `value`."""
    assert piece.pending is not None
    shift = ops.pointwise(w, w.program.mul, [mean, scale])
    result = algebra.add(w, algebra.mul(w, piece.pending, leaf(scale)), algebra.scale(leaf(shift), -1.0))
    result = result if piece.weight is None else algebra.mul(w, result, piece.weight)
    result = result if piece.bias is None else algebra.add(w, result, piece.bias)
    return Sum(result.terms, None, value) if isinstance(result, Sum) and result.operand is None else leaf(value)


# ------------------------------------------------------------------------------------------------------ batch norm


@rule(aten.batch_norm.default, law="(x - mean) g / sqrt(var + eps) + b = s x + o per channel")
def batch_norm(
    w: Workspace,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool = True,
) -> Value:
    """`(x - mean) * weight / sqrt(variance + eps) + bias`, over dim 1."""
    if training or mean is None or variance is None:
        raise Refusal("batch norm in training mode")
    spread = force(w, variance.node)
    scale = Value(variance.groups, leaf(Operand(_inverse_root(w, spread.tensor, eps), spread.axes)))
    if weight is not None:
        scale = mul(w, scale, weight)
    shift = mul(w, mul(w, mean, scale), -1.0)
    if bias is not None:
        shift = add(w, shift, bias)
    scale, shift = (Value(v.groups, leaf(force(w, v.node))) for v in (scale, shift))
    channels = [Value((*v.groups, *[()] * (x.ndim - 2)), v.node) for v in (scale, shift)]
    return add(w, mul(w, x, channels[0]), channels[1])


@rule(
    aten._native_batch_norm_legit_no_training.default,
    law="(x - mean) g / sqrt(var + eps) + b = s x + o per channel",
)
def batch_norm_decomposed(
    w: Workspace,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    momentum: float,
    eps: float,
) -> tuple[Value, None, None]:
    """The form that batch norm has after decomposition."""
    return batch_norm(w, x, weight, bias, mean, variance, False, momentum, eps), None, None
