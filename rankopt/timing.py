"""Estimated time of a program, call by call: what decisions are made on.

time = dispatch + multiply-adds, by the shape of the product + elements, by what is done to them + moves
"""

from __future__ import annotations

from rankopt.axes import elements
from rankopt.cost import FREE, FUNCTIONS, MOVES, REDUCTIONS, aten, multiply_adds
from rankopt.prices import DEFAULT, Profile
from rankopt.program import Expr, Leaf, Stage, operands
from rankopt.strides import RESHAPES, move, ranks, reshape_copies

PRODUCTS = frozenset({aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default})
NORMS = frozenset({aten.softmax.int, aten._softmax.default, aten._safe_softmax.default, aten.layer_norm.default})
MAXIMA = frozenset({aten.amax.default, aten.amin.default})


def total_time(exprs: list[Expr], rows: int, profile: Profile = DEFAULT) -> float:
    """Estimated nanoseconds of one request of `rows` candidates."""
    return sum(time(expr, rows, profile) for expr in exprs)


def time(expr: Expr, rows: int, profile: Profile = DEFAULT) -> float:
    """Estimated nanoseconds of one call at `rows` candidates. What runs once per model version is free."""
    if isinstance(expr.target, Leaf) or expr.stage is Stage.WEIGHT:
        return 0.0
    if expr.target in FREE and not (expr.target in RESHAPES and reshape_copies(expr)):
        return profile.view
    return profile.call + profile.shared(_work(expr, rows, profile))


def _work(expr: Expr, rows: int, profile: Profile) -> float:
    if expr.target in RESHAPES:
        return _moved(expr.args[0], rows, profile)
    if expr.target in PRODUCTS:
        return _product(expr, rows, profile)
    read = [x for x in operands(expr.args) if x.shape is not None]
    relaid = sum(_relaid(x, rows, profile) for x in read)
    if expr.target in MOVES:
        return relaid + _gathered(expr, rows, profile)
    return relaid + profile.multiply_add * multiply_adds(expr, rows) + _elementwise(expr, read, rows, profile)


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
    size = [elements((s,), rows) for s in (x.dims[-2], y.dims[-1], x.dims[-1])]
    addend = elements(expr.dims, rows) if len(expr.args) > 2 and len(expr.args[0].dims) > 1 else 0
    copied = sum(_moved(o, rows, profile) for o in (x, y) if _is_scattered(o, profile))
    return profile.product(batch, *size) + profile.gather * addend + copied


def _is_scattered(matrices: Expr, profile: Profile) -> bool:
    """Whether a product has to copy an operand: the batch is innermost, or lies inside and may not."""
    order = sorted(range(len(matrices.dims)), key=ranks(matrices).__getitem__)
    return len(order) == 3 and (order[-1] == 0 or (order[0] != 0 and not profile.strided_batch))


def _gathered(expr: Expr, rows: int, profile: Profile) -> float:
    written = elements(expr.dims, rows)
    run = elements(expr.dims[expr.args[1] + 1 :], rows) if expr.target is aten.index_select.default else written
    return profile.gather * written + profile.picked * written / max(run, 1)


def _elementwise(expr: Expr, read: list[Expr], rows: int, profile: Profile) -> float:
    written = elements(expr.dims, rows) if expr.shape is not None else 0
    largest = max((elements(x.dims, rows) for x in read), default=0)
    if expr.target in REDUCTIONS - NORMS:
        if _inner(expr, rows) >= LONG:
            return 2 * profile.element * largest
        return (profile.maximum if expr.target in MAXIMA else profile.reduced) * largest
    if expr.target in NORMS:
        return profile.norm * written + profile.norm_row * written / max(elements(expr.dims[-1:], rows), 1)
    each = profile.function if expr.target in FUNCTIONS else profile.element
    runs = written / _run(expr, read, rows) if written else 0.0
    return each * written + (profile.broadcast * runs if runs > 1 else 0.0)


LONG = 64
"""Elements behind the dims of a reduction from which on it works as fast as an elementwise call."""


def _inner(expr: Expr, rows: int) -> int:
    """Number of elements of a reduction's operand behind the last dim that is reduced."""
    source, dims = expr.args[0].dims, expr.args[1] if len(expr.args) > 1 else None
    if not isinstance(dims, list | tuple) or not dims:
        return 1
    return elements(source[max(dim % len(source) for dim in dims) + 1 :], rows)


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
