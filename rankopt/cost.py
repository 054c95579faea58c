"""What a call costs: FLOPs, bytes, and an estimate of time.

Three different numbers for three different readers. FLOPs (2 x multiply-adds; elementwise work apart) are what the
report shows. Bytes are what crosses memory. Time is what decisions are made on: multiply-adds are cheap, written
elements are not, and every call has a price of its own. Ignoring the last two made graphs ten times slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rankopt.axes import Rows, elements
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
class Profile:
    """Prices in nanoseconds, measured on two cores of a server CPU in eager float32.

    Only ratios matter: one written element costs as much as `element / multiply_add` multiply-adds.
    """

    multiply_add: float = 0.013
    """One multiply-add of a large matrix product."""
    thin: float = 9.0
    """How many times more a multiply-add costs in a product with fewer than 16 columns."""
    vector: float = 6.0
    """The same in a product with one row or column."""
    small_matrix: float = 35.0
    """Set-up of one matrix in a batch of products."""
    element: float = 0.16
    """One element written by a simple elementwise call, or read by a reduction."""
    function: float = 0.5
    """One element of a transcendental function."""
    gather: float = 0.28
    """One element moved by a gather or a concatenation."""
    copy: float = 0.5
    """One element moved by a copy that permutes dims."""
    call: float = 3000.0
    """Dispatch of one call that does work."""
    view: float = 900.0
    """Dispatch of one call that only makes a view."""

    def product(self, batch: int, rows: int, columns: int, inner: int) -> float:
        """Time of `batch` products `[rows, inner] @ [inner, columns]`, without dispatch.

        Thin products do not reach the arithmetic peak, and small matrices in a batch pay for their set-up.
        """
        rows, columns = (columns, rows) if 1 < columns < 16 and rows >= 64 else (rows, columns)
        narrow = min(rows, columns)
        factor = self.vector if narrow == 1 else self.thin if columns < 16 else 2.0 if narrow < 32 else 1.0
        arithmetic = self.multiply_add * factor * batch * rows * columns * inner
        small = 3.0 if batch > 1 and rows * columns * inner < 20_000 and columns >= 16 else 1.0
        written = 0.5 * self.element * batch * rows * columns
        return arithmetic * small + written + (self.small_matrix * batch if batch > 1 else 0.0)


DEFAULT = Profile()


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
        case aten.addmm.default:
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
        return elements(expr.dims, rows) if expr.target is aten.addmm.default else 0
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


def time(expr: Expr, rows: int, profile: Profile = DEFAULT) -> float:
    """Estimated nanoseconds of one call at `rows` candidates."""
    if isinstance(expr.target, Leaf) or expr.stage is Stage.WEIGHT:
        return 0.0
    if expr.target in FREE:
        if expr.target in RESHAPES and copies(expr):
            return profile.call + profile.copy * elements(expr.dims, rows)
        return profile.view
    if expr.target in (aten.mm.default, aten.addmm.default, aten.bmm.default):
        x, y = expr.args[-2:]
        batch = elements(x.dims[:-2], rows)
        size = [elements((s,), rows) for s in (x.dims[-2], y.dims[-1], x.dims[-1])]
        addend = elements(expr.dims, rows) if expr.target is aten.addmm.default and len(expr.args[0].dims) > 1 else 0
        copied = sum(elements(o.dims, rows) for o in (x, y) if expr.target is aten.bmm.default and _is_scattered(o))
        return profile.call + profile.product(batch, *size) + profile.gather * addend + profile.copy * copied
    written = elements(expr.dims, rows) if expr.shape is not None else 0
    if expr.target in MOVES:
        return profile.call + profile.gather * written
    read = max((elements(x.dims, rows) for x in operands(expr.args) if x.shape is not None), default=0)
    work = profile.multiply_add * multiply_adds(expr, rows)
    each = profile.function if expr.target in FUNCTIONS else profile.element
    return profile.call + work + each * max(written, read if expr.target in REDUCTIONS else 0)


def copies(expr: Expr) -> bool:
    """Whether a reshape has to move memory: it merges dims of a permuted tensor that are not neighbours there."""
    source = expr.args[0]
    if source.target is aten.expand.default:
        return True
    if source.target not in PERMUTES:
        return False
    order = _order(source)
    kept = [(dim, size) for dim, size in zip(order, source.dims, strict=True) if size != 1]
    target = [size for size in expr.dims if size != 1]
    return not _regroups(kept, target)


def _is_scattered(batched: Expr) -> bool:
    """Whether the batch dim is the innermost in memory, so that the matrices have no dim of stride one."""
    if batched.target is aten.reshape.default:
        batched = batched.args[0]
    return batched.target in PERMUTES and _order(batched)[0] == len(batched.dims) - 1


def _order(permuted: Expr) -> list[int]:
    """Where each dim of a permuted tensor lies in memory."""
    order = list(range(len(permuted.dims)))
    if permuted.target is aten.permute.default:
        return [dim % len(order) for dim in permuted.args[1]]
    first, second = (0, 1) if permuted.target is aten.t.default else permuted.args[1:3]
    order[first], order[second] = order[second], order[first]
    return order


def _regroups(dims: list[tuple[int, int | Rows]], target: list[int | Rows]) -> bool:
    """Whether `target` merges only dims that follow each other in memory (`dims` = memory position, size)."""
    start = 0
    for size in target:
        want, have, end = _static(size), 1, start
        while have < want and end < len(dims):
            have *= _static(dims[end][1])
            end += 1
        if have % want:
            return False
        run = [position for position, _ in dims[start:end]]
        if run != list(range(run[0], run[0] + len(run))) if run else False:
            return False
        if have > want:
            dims = [*dims[: end - 1], (dims[end - 1][0], have // want), *dims[end:]]
            start = end - 1
        else:
            start = end
    return True


def _static(size: int | Rows) -> int:
    return size.times * 7919 if isinstance(size, Rows) else size


def total_time(exprs: list[Expr], rows: int, profile: Profile = DEFAULT) -> float:
    """Estimated nanoseconds of one request of `rows` candidates."""
    return sum(time(expr, rows, profile) for expr in exprs)
