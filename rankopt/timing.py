"""Estimated time of a program, call by call: what decisions are made on.

time = dispatch + multiply-adds, by the shape of the product + elements, by what is done to them + moves
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch

from rankopt.axes import elements
from rankopt.backends import DEFAULT
from rankopt.cost import CUTS, FREE, FUNCTIONS, MOVES, REDUCTIONS, SELECTIONS, aten, products
from rankopt.expressions import Expr, Leaf, Stage, operands
from rankopt.fusion import inside_readers
from rankopt.prices import CACHED, Profile
from rankopt.strides import RESHAPES, move, ranks, reshape_copies

PRODUCTS = frozenset({aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default})
SOFTMAXES = frozenset({aten.softmax.int, aten._softmax.default, aten._safe_softmax.default})
MAXIMA = frozenset({aten.amax.default, aten.amin.default})


def total_time(exprs: Sequence[Expr], rows: int, profile: Profile = DEFAULT) -> float:
    """Estimated nanoseconds of one request of `rows` candidates."""
    inside = fused(exprs, profile)
    calls = sum(time(expr, rows, profile, inside=expr.serial in inside) for expr in exprs)
    return entry_time(exprs, profile) + calls


def entry_time(exprs: Sequence[Expr], profile: Profile) -> float:
    """Estimated nanoseconds before the first call of a request: every tensor that comes from outside is looked at."""
    read = {x.serial for expr in exprs if expr.stage is not Stage.WEIGHT for x in operands((expr.args, expr.kwargs))}
    tensors = [x for x in exprs if x.serial in read and (x.stage is Stage.WEIGHT or x.target is Leaf.INPUT)]
    return profile.request + profile.tensor * len(tensors)


def fused(exprs: Sequence[Expr], profile: Profile) -> frozenset[int]:
    """The serials of the calls of a program that the backend computes inside their readers."""
    return inside_readers(exprs) if profile.fused < 1.0 else frozenset()


def time(expr: Expr, rows: int, profile: Profile = DEFAULT, *, inside: bool = False) -> float:
    """Estimated nanoseconds of one call at `rows` candidates. What runs once per model version is free.

    `inside`: whether its reader computes it in its own loop (see `fusion`).
    """
    if isinstance(expr.target, Leaf) or expr.stage is Stage.WEIGHT or expr.target is operator.getitem:
        return 0.0
    if inside:
        return profile.shared(_arithmetic(expr, rows, profile) * (1.0 if _is_function(expr) else profile.fused))
    if expr.target in CUTS and profile.copied_cuts:
        return profile.view + profile.shared(_copied(expr, rows, profile))
    if expr.target in FREE and not (expr.target in RESHAPES and reshape_copies(expr)):
        return profile.view
    apart = len(expr.args[0]) if expr.target is aten.stack.default and profile.stacked_apart else 0
    return profile.call + profile.view * apart + profile.shared(_work(expr, rows, profile))


def _work(expr: Expr, rows: int, profile: Profile) -> float:
    written = elements(expr.dims, rows) if expr.shape is not None else 0
    return _arithmetic(expr, rows, profile) + profile.streamed * max(written - CACHED, 0)


def _arithmetic(expr: Expr, rows: int, profile: Profile) -> float:
    if expr.target in RESHAPES:
        return _moved(expr.args[0], rows, profile)
    if expr.target in PRODUCTS:
        return _product(expr, rows, profile)
    read = [x for x in operands(expr.args) if x.shape is not None]
    relaid = sum(_relaid(x, rows, profile) for x in read)
    if expr.target in MOVES:
        return relaid + _gathered(expr, rows, profile)
    if products(expr, rows):
        return relaid + _composite(expr, rows, profile)
    return relaid + _elementwise(expr, read, rows, profile)


def _moved(tensor: Expr, rows: int, profile: Profile) -> float:
    """Writing a view out in the order of its dims."""
    moving = move(tensor, rows)
    if moving is None:
        return profile.gather * elements(tensor.dims, rows)
    return profile.move(moving.elements, moving.run, moving.planes)


def _relaid(tensor: Expr, rows: int, profile: Profile) -> float:
    """Reading a permuted view in the order of its dims."""
    return _moved(tensor, rows, profile) if move(tensor, rows) is not None else 0.0


def _product(expr: Expr, rows: int, profile: Profile) -> float:
    x, y = expr.args[-2:]
    batch = elements(x.dims[:-2], rows)
    height, width, inner = (elements((size,), rows) for size in (x.dims[-2], y.dims[-1], x.dims[-1]))
    addend = elements(expr.dims, rows) if len(expr.args) > 2 and len(expr.args[0].dims) > 1 else 0
    copied = sum(_moved(o, rows, profile) for o in (x, y) if _is_scattered(o, profile))
    innermost = height * width * inner >= LOOPED and any(_batch_place(o) == 2 for o in (x, y))
    one_by_one = profile.innermost * batch if innermost else 0.0
    if profile.packed and y.stage is not Stage.WEIGHT and batch == 1:
        copied += profile.gather * inner * width  # which is packed at each call
    multiplied = profile.product(batch, height, width, inner, _is_packed(y, profile))
    return multiplied + profile.gather * addend + copied + one_by_one


def _is_packed(right: Expr, profile: Profile) -> bool:
    return profile.packed and right.stage is Stage.WEIGHT


LOOPED = 400
"""Multiply-adds of a product that is so small that its batch is a plain loop, whatever lies where."""


def _is_scattered(matrices: Expr, profile: Profile) -> bool:
    """Whether a product has to copy an operand: the batch is innermost, or lies inside and may not."""
    place = _batch_place(matrices)
    return place == 2 or (place == 1 and not profile.strided_batch)


def _batch_place(matrices: Expr) -> int:
    """0 if the batch lies outside of its matrices, as it should, 1 if inside, 2 if it is innermost."""
    order = sorted(range(len(matrices.dims)), key=ranks(matrices).__getitem__)
    return order.index(0) if len(order) == 3 else 0


def _composite(expr: Expr, rows: int, profile: Profile) -> float:
    """A call that makes products among other things: matmul repeats an operand, attention takes a softmax."""
    made = products(expr, rows)
    packed = any(_is_packed(x, profile) for x in operands(expr.args[1:2]))
    time = sum(profile.product(*product, packed) for product in made)
    if expr.target is aten.einsum.default:
        return time + profile.einsum * sum(elements(x.dims, rows) for x in (expr, *operands(expr.args)))
    if expr.target is aten.scaled_dot_product_attention.default:
        scores = made[0]
        return time + profile.normalised(scores.batch * scores.rows, scores.columns)
    if expr.target is aten.matmul.default and (batch := made[0].batch) > 1 and not profile.as_they_are:
        for x in expr.args[:2]:
            whole = batch * elements(x.dims[-2:], rows)
            time += profile.gather * whole if whole > elements(x.dims, rows) else 0.0
    return time


def _gathered(expr: Expr, rows: int, profile: Profile) -> float:
    written, source, width = elements(expr.dims, rows), expr.args[0], expr.dtype.itemsize
    match expr.target:
        case aten.index_select.default:
            return profile.gathered(written, elements(expr.dims[expr.args[1] % len(expr.dims) + 1 :], rows), width)
        case aten.embedding.default:
            run = elements(source.dims[1:], rows)
            missed = profile.missed if elements(source.dims, rows) > CACHED else 0.0
            return profile.gathered(written, run, width) + missed * written / run
        case aten.index.Tensor:
            return profile.indexed * written
        case aten.cat.default | aten.stack.default:
            dim = (expr.args[1] if len(expr.args) > 1 else 0) % len(expr.dims)
            runs = len(source) * elements(expr.dims[:dim], rows)
            return profile.gather * written + profile.row * runs
    return profile.gather * written


def _copied(cut: Expr, rows: int, profile: Profile) -> float:
    """A cut that is no view."""
    if cut.shape is None:  # a split has several results
        return profile.gather * elements(cut.args[0].dims, rows)
    written = elements(cut.dims, rows)
    if cut.target in (aten.expand.default, aten.expand_as.default):
        return profile.gather * written + profile.row * _doublings(cut, rows)
    if cut.target not in (aten.slice.Tensor, aten.select.int):
        return profile.gather * written
    source = cut.args[0].dims
    dim = (cut.args[1] if len(cut.args) > 1 else 0) % len(source)
    length = 1 if cut.target is aten.select.int else cut.dims[dim]
    run = elements((length, *source[dim + 1 :]), rows)
    return profile.gathered(written, run, cut.dtype.itemsize) if written > run else profile.gather * written


def _doublings(expand: Expr, rows: int) -> float:
    """Copies of what was copied before, by which the innermost dim that is repeated gets its size."""
    source, dims = expand.args[0].dims, expand.dims
    new = len(dims) - len(source)
    repeated = [dim for dim, size in enumerate(dims) if dim < new or source[dim - new] != size]
    if not repeated:
        return 0.0
    last = repeated[-1]
    return elements(dims[:last], rows) * math.log2(max(elements(dims[last : last + 1], rows), 1))


def _elementwise(expr: Expr, read: list[Expr], rows: int, profile: Profile) -> float:
    written = elements(expr.dims, rows) if expr.shape is not None else 0
    if expr.target is aten.layer_norm.default:
        size = max(elements(expr.args[1], rows), 1)
        return profile.normalised(written // size, size)
    if expr.target in SOFTMAXES and expr.dims:
        time = profile.softmax([elements((size,), rows) for size in expr.dims], expr.args[1] % len(expr.dims))
        return profile.guarded * time if expr.target is aten._safe_softmax.default else time
    if expr.target in REDUCTIONS:
        return _reduction(expr, rows, profile)
    each = profile.element_of(_name(expr)) if _is_function(expr) else profile.element
    if expr.dtype is torch.int64:
        each *= WIDE
    runs = written / _run(expr, read, rows) if written else 0.0
    return each * written + (profile.broadcast * runs if runs > 1 else 0.0)


def _is_function(expr: Expr) -> bool:
    """Whether elements cost what those of a function do; low powers are products."""
    if expr.target is aten.pow.Tensor_Scalar and expr.args[1] in (2, 3):
        return False
    return expr.target in FUNCTIONS | SELECTIONS


def _name(call: Expr) -> str:
    return str(call.target).split(".")[1]  # of aten.sigmoid.default, sigmoid


WIDE = 4
"""How many times dearer integers of eight bytes are than numbers of four, of which a processor takes many at a time."""


def _reduction(expr: Expr, rows: int, profile: Profile) -> float:
    """A sum, a mean or a maximum: by its elements, and by the runs of neighbours that are all reduced, or all kept."""
    dims = expr.args[0].dims
    chosen = expr.args[1] if len(expr.args) > 1 and isinstance(expr.args[1], list | tuple) else ()
    reduced = {dim % len(dims) for dim in chosen} or set(range(len(dims)))
    counts = [elements((size,), rows) for size in dims]
    within = [dim for dim in reversed(range(len(dims))) if counts[dim] != 1]
    run = 1
    for dim in within:
        if (dim in reduced) != (within[0] in reduced):
            break
        run *= counts[dim]
    total = math.prod(counts)
    runs = total / max(run, 1)
    time = profile.read * total + profile.reduced * runs
    if expr.target in MAXIMA:
        return time + profile.maximum * runs * (run % TOGETHER)
    if expr.target is aten.logsumexp.default:
        return time + profile.function * total
    if within and within[0] not in reduced:
        return time + profile.between * (outside if (outside := math.prod(counts[: min(reduced)])) > 1 else 0)
    return time


TOGETHER = 32
"""Numbers in float32 that a maximum takes at once."""


def _run(expr: Expr, read: list[Expr], rows: int) -> int:
    """The length of the innermost stretch along which every operand is whole, or repeated."""
    run = elements(expr.dims, rows)
    for x in read:
        length, first = 1, None
        for dim in range(1, len(expr.dims) + 1):
            size = x.dims[-dim] if dim <= len(x.dims) else 1
            if expr.dims[-dim] == 1:
                continue
            repeated = size == 1
            if first is None:
                first = repeated
            if repeated != first:
                run = min(run, length)
                break
            length *= elements((expr.dims[-dim],), rows)
    return max(run, 1)
