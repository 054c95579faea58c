"""Products as calls: each an elementwise product, a sum of one, or one (batched) matrix product.

Copies are what makes a product slow, so its factors are read as they lie in memory, on the side that they fit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rankopt import operands as ops
from rankopt.axes import Axis, Group, group_size, volume
from rankopt.contraction import Roles, Tree, elementwise_cost, order, product_cost, roles, sketch
from rankopt.expressions import Expr
from rankopt.layout import Written, matrix_form
from rankopt.operands import Operand, size_of
from rankopt.program import aten
from rankopt.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Product:
    """A product that is ready to be written: two operands and the axes to keep."""

    x: Operand
    y: Operand
    kept: frozenset[Axis]


def plan(w: Workspace, operands: Sequence[Operand], kept: Collection[Axis]) -> Operand | Product:
    """All products but the last, written in the cheapest order; the last is left to be fused with a sum."""
    operands = [_sum_alone(w, operands, i, kept) for i in range(len(operands))]
    if len(operands) == 1:
        return operands[0]
    tree = order(w, [sketch(operand) for operand in operands], kept).tree
    return _write(w, tree, operands, frozenset(kept))


def _sum_alone(w: Workspace, operands: Sequence[Operand], i: int, kept: Collection[Axis]) -> Operand:
    others = {axis for j, operand in enumerate(operands) if j != i for axis in operand.axes}
    gone = [axis for axis in operands[i].axes if axis not in kept and axis not in others]
    return ops.reduce(w, aten.sum.dim_IntList, operands[i], gone)


def _numbers(tree: Tree) -> set[int]:
    return {tree} if isinstance(tree, int) else _numbers(tree[0]) | _numbers(tree[1])


def _write(w: Workspace, tree: Tree, operands: Sequence[Operand], kept: frozenset[Axis]) -> Operand | Product:
    if isinstance(tree, int):
        return operands[tree]
    sides = [_numbers(side) for side in tree]
    written: list[Operand] = []
    for side, numbers in zip(tree, sides, strict=True):
        outside = {axis for i, o in enumerate(operands) if i not in numbers for axis in o.axes}
        written.append(multiply(w, _write(w, side, operands, kept | outside)))
    return Product(written[0], written[1], kept)


def multiply(w: Workspace, product: Operand | Product) -> Operand:
    """Writes one product: elementwise, as dot products, or as one (batched) matrix product."""
    if isinstance(product, Operand):
        return product
    o = _oriented(w, product)
    x, y, r = o.x, o.y, o.roles
    if not r.inner:
        return ops.pointwise(w, w.program.mul, [x, y])
    if r.batch and (not (r.left or r.right) or elementwise_cost(w, x.axes, y.axes, r) < product_cost(w, r)):
        return ops.reduce(w, aten.sum.dim_IntList, ops.pointwise(w, w.program.mul, [x, y]), r.inner)
    return _unmerge(w, _matrix_product(w, x, y, r), r, o.written)


def multiply_add(w: Workspace, total: Operand, product: Product, scale: float) -> Operand | None:
    """`total + scale * product` in one call: `total` is all of the result, or a row or column of a plain matrix."""
    o = _oriented(w, product)
    x, y, r = o.x, o.y, o.roles
    if total.dtype != x.dtype or total.dtype != y.dtype:
        return None
    if not r.inner or not (r.left or r.right) or elementwise_cost(w, x.axes, y.axes, r) < product_cost(w, r):
        return None
    r = _in_order(x, y, r)
    addend = _addend(w, total, r)
    if addend is None:
        return None
    a, b = _matrix(w, x, r.batch, r.left, r.inner), _matrix(w, y, r.batch, r.inner, r.right)
    kwargs = {} if scale == 1.0 else {"alpha": scale}
    target = aten.baddbmm.default if r.batch else aten.addmm.default
    result = w.program.call(target, addend, a, b, shape=(*a.dims[:-1], b.dims[-1]), out=a.dtype, **kwargs)
    return _unmerge(w, result, r, o.written)


def _addend(w: Workspace, total: Operand, r: Roles) -> Expr | None:
    """What a product is added to, in the form of its result."""
    if total.axes == (*r.batch, *r.left, *r.right):
        batch = [group_size(r.batch)] if r.batch else []
        return w.program.view(total.tensor, (*batch, group_size(r.left), group_size(r.right)))
    if r.batch:
        return None
    if set(total.axes) == set(r.right):
        return w.program.view(ops.arrange(w, total, r.right), (group_size(r.right),))
    if set(total.axes) == set(r.left):
        return w.program.view(ops.arrange(w, total, r.left), (group_size(r.left), 1))
    return None


Scaled = tuple[float, Operand | Product]
"""A value that is ready to be written, and the factor that it is to be added with."""


def join_products(w: Workspace, items: Sequence[Scaled]) -> list[Scaled]:
    """Products with the same outer axes become one: `x V + y W = [x y] [V; W]`, where that moves less memory."""
    groups: dict[object, list[tuple[float, Product]]] = {}
    result: list[Scaled] = []
    for scale, item in items:
        key = _joinable(item)
        if key is None:
            result.append((scale, item))
        else:
            assert isinstance(item, Product)
            groups.setdefault(key, []).append((scale, item))
    for group in groups.values():
        joined = _join(w, group) if len(group) > 1 else None
        result.extend([(1.0, joined)] if joined is not None else group)
    return result


def _joinable(item: Operand | Product) -> object:
    """What products must have in common to be joined; None for one that is not a plain matrix product per candidate."""
    if isinstance(item, Operand):
        return None
    x, y = _rows_first(item.x, item.y)
    r = roles(x.axes, y.axes, item.kept)
    if r.batch or not (r.inner and r.left and r.right) or y.has_rows or not x.has_rows:
        return None
    return r.left, frozenset(r.right), x.dtype


def _join(w: Workspace, group: Sequence[tuple[float, Product]]) -> Product | None:
    sides = [_rows_first(product.x, product.y) for _, product in group]
    first = roles(sides[0][0].axes, sides[0][1].axes, group[0][1].kept)
    inner = [roles(x.axes, y.axes, p.kept).inner for (x, y), (_, p) in zip(sides, group, strict=True)]
    rows, columns = volume(first.left, w.candidates), volume(first.right, w.candidates)
    moved = w.profile.call + w.profile.gather * rows * sum(volume(axes, w.candidates) for axes in inner)
    saved = (len(group) - 1) * (w.profile.call + w.profile.gather * rows * columns)
    if moved > saved:
        return None
    ordered = [
        _in_order(x, y, Roles((), axes, first.left, first.right)) for (x, y), axes in zip(sides, inner, strict=True)
    ]
    left = [_matrix(w, x, (), first.left, r.inner) for (x, _), r in zip(sides, ordered, strict=True)]
    right = [
        w.program.scale(_matrix(w, y, (), r.inner, first.right), scale)
        for (_, y), r, (scale, _) in zip(sides, ordered, group, strict=True)
    ]
    axis = w.axes.fresh(sum(volume(axes, w.candidates) for axes in inner))
    x = w.program.view(w.program.cat(left, 1), [size_of(a) for a in (*first.left, axis)])
    y = w.program.view(w.program.cat(right, 0), [size_of(a) for a in (axis, *first.right)])
    kept = frozenset((*first.left, *first.right))
    return Product(Operand(x, (*first.left, axis)), Operand(y, (axis, *first.right)), kept)


def _rows_first(x: Operand, y: Operand) -> tuple[Operand, Operand]:
    """What is computed latest on the left (candidates, then context, then weights): the result keeps its layout."""
    keys = [(operand.has_rows, operand.tensor.stage, -operand.tensor.serial) for operand in (x, y)]
    return (y, x) if keys[1] > keys[0] else (x, y)


@dataclass(frozen=True, slots=True)
class Oriented:
    """A product with its factors on the left and on the right, and how its result is laid out."""

    x: Operand
    y: Operand
    roles: Roles
    written: Written


def _oriented(w: Workspace, product: Product) -> Oriented:
    """The factors as left and right: rows on the left, unless the right is thin or readers want it otherwise.

    BLAS is several times faster at `Y^T X^T` than at `X Y` where Y has few columns; a transposed result costs nothing.
    """
    x, y = _rows_first(product.x, product.y)
    r = roles(x.axes, y.axes, product.kept)
    rows, columns = volume(r.left, w.candidates), volume(r.right, w.candidates)
    thin = bool(r.inner) and is_thin(rows, columns, packed=w.profile.packed and y.is_weight)
    number = w.layouts.number((x.tensor.serial, y.tensor.serial, _pattern(x.axes, y.axes, r)))
    layout = w.layouts.layout(number, len(r.batch), len(r.right), thin)
    batch = tuple(r.batch[place] for place in layout.batch)
    right = tuple(r.right[place] for place in layout.columns)
    transposed = layout.transposed and bool(r.inner)
    canonical = (*r.batch, *r.left, *r.right)
    outer = (*batch, *right, *r.left) if transposed else (*batch, *r.left, *right)
    written = Written(
        number,
        tuple(canonical.index(axis) for axis in outer),
        batch=len(r.batch),
        rows=len(r.left),
        columns=len(r.right),
        may_permute=not y.has_rows,
        may_transpose=not thin and x.has_rows,
    )
    if transposed:
        return Oriented(y, x, Roles(batch, r.inner, right, r.left), written)
    return Oriented(x, y, Roles(batch, r.inner, r.left, right), written)


def _pattern(x: Group, y: Group, r: Roles) -> tuple[tuple[int, ...], ...]:
    """What tells two products of the same tensors apart: where in each their axes are."""
    places = [tuple(x.index(axis) for axis in group) for group in (r.batch, r.inner, r.left)]
    return (*places, *(tuple(y.index(axis) for axis in group) for group in (r.batch, r.inner, r.right)))


def is_thin(rows: int, columns: int, packed: bool) -> bool:
    """Whether `[rows, k] @ [k, columns]` is better computed transposed.

    One column is a matrix-vector product, which is as fast from both sides, unless the column is `packed`: then it is
    multiplied as if it were many.
    """
    return (0 if packed else 1) < columns < 16 and rows >= 64


def _in_order(x: Operand, y: Operand, r: Roles) -> Roles:
    """Summed axes in the order in which the operand that is dearer to copy has them in memory."""
    leading = x if not x.is_weight else y
    return Roles(r.batch, tuple(axis for axis in leading.axes if axis in r.inner), r.left, r.right)


def _matrix_product(w: Workspace, x: Operand, y: Operand, r: Roles) -> Expr:
    ordered = _in_order(x, y, r)
    a = _matrix(w, x, ordered.batch, ordered.left, ordered.inner)
    b = _matrix(w, y, ordered.batch, ordered.inner, ordered.right)
    target = aten.bmm.default if ordered.batch else aten.mm.default
    return w.program.call(target, a, b, shape=(*a.dims[:-1], b.dims[-1]), out=a.dtype)


def _matrix(w: Workspace, operand: Operand, batch: Group, rows: Group, columns: Group) -> Expr:
    """The operand as `[batch, rows, columns]` (2-D without a batch), each a merge of its axes.

    Groups are merged as they lie in memory and permuted afterwards: backends read a transposed matrix as it is. What
    has to be copied keeps its innermost axes together.
    """
    groups = (batch, rows, columns) if batch else (rows, columns)
    w.layouts.read(operand.tensor.serial, operand.axes, (batch, rows, columns), w.candidates)
    laid = _memory_order(operand, batch, groups)
    tensor = ops.arrange(w, operand, [axis for place in laid for axis in groups[place]])
    merged = w.program.view(tensor, [group_size(groups[place]) for place in laid])
    return w.program.permute(merged, [laid.index(place) for place in range(len(groups))])


def _memory_order(operand: Operand, batch: Group, groups: Sequence[Group]) -> list[int]:
    """The order in which the groups lie in memory, or are best written there."""
    places = list(range(len(groups)))
    if operand.is_weight:
        return places
    if matrix_form(operand.axes, batch, *groups[-2:]).copied:
        swapped = bool(groups[-2]) and operand.axes[-1] is groups[-2][-1]
        return [*places[:-2], places[-1], places[-2]] if swapped else places
    start = [operand.axes.index(group[0]) if group else -1 for group in groups]
    if not groups[-1]:
        start[-1] = len(operand.axes)
    return sorted(places, key=start.__getitem__)


def _unmerge(w: Workspace, tensor: Expr, r: Roles, written: Written) -> Operand:
    axes = (*r.batch, *r.left, *r.right)
    result = Operand(w.program.view(tensor, [size_of(axis) for axis in axes]), axes)
    w.layouts.wrote(result.tensor.serial, written)
    return result
