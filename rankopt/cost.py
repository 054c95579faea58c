"""FLOPs of a program: 2 x multiply-adds of its matrix products; elementwise work apart.

They are what the report shows. What decisions are made on is time (see `timing`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rankopt.axes import elements
from rankopt.program import Expr, Leaf, Stage, operands

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


def multiply_adds(expr: Expr, rows: int) -> int:
    """Multiply-adds of the matrix products in one call, when there are `rows` candidates."""
    match expr.target:
        case aten.mm.default | aten.bmm.default:
            inner = elements(expr.args[0].dims[-1:], rows)
        case aten.addmm.default | aten.baddbmm.default:
            inner = elements(expr.args[1].dims[-1:], rows)
        case aten.linear.default:
            inner = elements(expr.args[0].dims[-1:], rows)
        case aten.matmul.default:
            inner = elements(expr.args[0].dims[-1:], rows)
        case aten.convolution.default | aten.conv1d.default | aten.conv2d.default:
            weight = expr.args[1].dims
            inner = elements(weight[1:], rows)
        case aten.scaled_dot_product_attention.default:
            query, key, value = (expr.args[i].dims for i in range(3))
            scores = elements(query[:-1], rows) * elements(key[-2:-1], rows)
            return scores * (elements(query[-1:], rows) + elements(value[-1:], rows))
        case aten.einsum.default:
            return _einsum_multiply_adds(expr, rows)
        case _:
            return 0
    return elements(expr.dims, rows) * inner


def _einsum_multiply_adds(expr: Expr, rows: int) -> int:
    letters: dict[str, int] = {}
    if len(expr.args[1]) < 2:
        return 0
    for spec, operand in zip(expr.args[0].replace(" ", "").split("->")[0].split(","), expr.args[1], strict=True):
        for letter, size in zip(spec, operand.dims, strict=False):
            letters[letter] = elements((size,), rows)
    return math.prod(letters.values())


def elementwise(expr: Expr, rows: int) -> int:
    """Elements written by a call that is neither a matrix product nor pure data movement."""
    if expr.shape is None or isinstance(expr.target, Leaf) or expr.target in FREE | MOVES:
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
