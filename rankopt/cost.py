"""FLOPs of a program: 2 x multiply-adds of its matrix products; elementwise work apart.

They are what the report shows. What decisions are made on is time (see `timing`).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from rankopt.axes import Shape, Size, elements
from rankopt.expressions import Expr, Leaf, Stage, operands

aten = torch.ops.aten

FREE = frozenset(
    {
        aten.reshape.default,
        aten.view.default,
        aten.view_as.default,
        aten._unsafe_view.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.movedim.int,
        aten.expand_as.default,
        aten.squeeze.dim,
        aten.squeeze.default,
        aten.narrow.default,
        aten.unbind.int,
        aten.split.Tensor,
        aten.split.sizes,
        aten.split_with_sizes.default,
        aten.chunk.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.expand.default,
        aten.unsqueeze.default,
        aten.squeeze.dims,
        aten.sym_size.int,
        aten.alias.default,
    }
)
"""Calls that only make a view (a reshape that has to copy is charged by `copies`)."""

CUTS = frozenset(
    {
        aten.narrow.default, aten.unbind.int, aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default,
        aten.chunk.default, aten.slice.Tensor, aten.select.int, aten.expand.default, aten.expand_as.default,
    }
)  # fmt: skip
"""Those of them that hold another number of elements than what they view: not every backend has such views."""

RESHAPES = frozenset({aten.reshape.default, aten.flatten.using_ints, aten.view.default})
PERMUTES = frozenset({aten.permute.default, aten.transpose.int, aten.t.default})


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs per request as a function `once + each * N` of the number of candidates; elementwise work apart."""

    once: float = 0.0
    each: float = 0.0
    elementwise_once: float = 0.0
    elementwise_each: float = 0.0

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            self.once + other.once,
            self.each + other.each,
            self.elementwise_once + other.elementwise_once,
            self.elementwise_each + other.elementwise_each,
        )

    def at(self, candidates: int) -> float:
        """FLOPs of matrix products for one request of `candidates`."""
        return self.once + self.each * candidates

    def elementwise_at(self, candidates: int) -> float:
        """FLOPs of elementwise work for one request of `candidates`."""
        return self.elementwise_once + self.elementwise_each * candidates


class Product(NamedTuple):
    """`batch` products `[rows, inner] @ [inner, columns]`."""

    batch: int
    rows: int
    columns: int
    inner: int

    @property
    def multiply_adds(self) -> int:
        """Of all of them."""
        return math.prod(self)


def multiply_adds(expr: Expr, rows: int) -> int:
    """Multiply-adds of the matrix products in one call, when there are `rows` candidates."""
    return sum(product.multiply_adds for product in products(expr, rows))


def products(expr: Expr, rows: int) -> list[Product]:
    """The matrix products that one call makes, when there are `rows` candidates."""

    def size(*dims: Size) -> int:
        return elements(dims, rows)

    match expr.target:
        case aten.mm.default | aten.bmm.default | aten.addmm.default | aten.baddbmm.default:
            batch, height, width = expr.dims[:-2], expr.dims[-2], expr.dims[-1]
            return [Product(size(*batch), size(height), size(width), size(expr.args[-2].dims[-1]))]
        case aten.linear.default:
            return [Product(1, size(*expr.dims[:-1]), size(expr.dims[-1]), size(expr.args[0].dims[-1]))]
        case aten.matmul.default:
            return [_matmul(expr.args[0].dims, expr.args[1].dims, expr.dims, rows)]
        case aten.convolution.default | aten.conv1d.default | aten.conv2d.default:
            samples, channels, *places = expr.dims
            return [Product(size(samples), size(channels), size(*places), size(*expr.args[1].dims[1:]))]
        case aten.scaled_dot_product_attention.default:
            query, key, value = (expr.args[i].dims for i in range(3))
            heads, queries, keys = size(*query[:-2]), size(query[-2]), size(key[-2])
            return [
                Product(heads, queries, keys, size(query[-1])),
                Product(heads, queries, size(value[-1]), keys),
            ]
        case aten.einsum.default if len(expr.args[1]) > 1:
            return [_einsum(expr, rows)]
        case _:
            return []


def _matmul(left: Shape, right: Shape, result: Shape, rows: int) -> Product:
    """torch.matmul: a vector is a matrix of one row or column; a matrix on the right multiplies all rows at once."""
    inner = elements(left[-1:], rows)
    if len(right) <= 2:
        return Product(1, elements(left[:-1], rows), elements(right[1:], rows), inner)
    batch = len(result) - (2 if len(left) > 1 else 1)
    return Product(elements(result[:batch], rows), elements(result[batch:-1], rows), elements(result[-1:], rows), inner)


def _einsum(expr: Expr, rows: int) -> Product:
    terms, arrow, output = expr.args[0].replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    specs = terms.split(",")
    for spec, operand in zip(specs, expr.args[1], strict=True):
        for letter, dim in zip(spec, operand.dims, strict=False):
            sizes[letter] = elements((dim,), rows)
    kept = set(output) if arrow else {letter for letter in sizes if terms.count(letter) == 1}
    first, second = set(specs[0]), set().union(*specs[1:])
    groups = [first & second & kept, first - second, second - first, (first & second) - kept]
    return Product(*(math.prod(sizes.get(letter, 1) for letter in group) for group in groups))


def elementwise(expr: Expr, rows: int) -> int:
    """Elements written by a call that is neither a matrix product nor pure data movement."""
    if expr.shape is None or isinstance(expr.target, Leaf) or expr.target in FREE | MOVES | {operator.getitem}:
        return 0
    if multiply_adds(expr, rows):
        return elements(expr.dims, rows) if expr.target in (aten.addmm.default, aten.baddbmm.default) else 0
    if expr.target in REDUCTIONS:
        return sum(elements(x.dims, rows) for x in operands(expr.args[:1]))
    return elements(expr.dims, rows)


MOVES = frozenset(
    {
        aten.cat.default,
        aten.index_select.default,
        aten.embedding.default,
        aten.clone.default,
        aten.stack.default,
        aten._to_copy.default,
        aten.index.Tensor,
    }
)
"""Calls that copy elements and compute nothing."""

REDUCTIONS = frozenset(
    {
        aten.sum.dim_IntList,
        aten.mean.dim,
        aten.amax.default,
        aten.amin.default,
        aten.softmax.int,
        aten.logsumexp.default,
    }
)
"""Calls whose work is in the elements read."""


FUNCTIONS = frozenset(
    {
        aten.exp.default, aten.log.default, aten.sigmoid.default, aten.tanh.default, aten.gelu.default,
        aten.silu.default, aten.softmax.int, aten._softmax.default, aten._safe_softmax.default,
        aten.layer_norm.default, aten.erf.default, aten.softplus.default, aten.pow.Tensor_Scalar,
        aten.pow.Tensor_Tensor,
    }
)  # fmt: skip
"""Elementwise calls that evaluate a transcendental function, and the norms."""

SELECTIONS = frozenset({aten.where.self, aten.masked_fill.Scalar, aten.masked_fill.Tensor})
"""Elementwise calls that branch on every element, which takes as long as a function."""


UNTAGGED = frozenset(
    {
        aten._to_copy.default, aten.to.dtype, aten.type_as.default, aten.clone.default, aten.contiguous.default,
        aten.detach.default, aten.alias.default, aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf,
        aten.log_sigmoid.default, aten._prelu_kernel.default,
        aten.zeros_like.default, aten.ones_like.default, aten.full_like.default,
    }
)  # fmt: skip
"""Elementwise calls that torch has not tagged as such."""


def is_pointwise(target: Any) -> bool:
    """Whether an op is elementwise."""
    return target in UNTAGGED or (isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags)


def flops(exprs: list[Expr]) -> Flops:
    """FLOPs of a program. What runs once per model version is not charged to a request."""
    total = Flops()
    for expr in exprs:
        if expr.stage is Stage.WEIGHT:
            continue
        at1, at2 = 2.0 * multiply_adds(expr, 1), 2.0 * multiply_adds(expr, 2)
        ew1, ew2 = float(elementwise(expr, 1)), float(elementwise(expr, 2))
        total += Flops(2 * at1 - at2, at2 - at1, 2 * ew1 - ew2, ew2 - ew1)
    return total
