"""Which calls keep rows apart: `f(x)[i]` reads nothing but row i of the operands.

Such a call gives the same rows whether it sees the rows of one request or those of all. Whatever came from a rule keeps
rows apart, for no rule moves a value along the row axis. An op that was left as the model wrote it ("opaque") may mix
rows; it is trusted only where its kind and its dims show that it does not.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from typing import Any

from rankopt.axes import Rows
from rankopt.cost import is_pointwise
from rankopt.expressions import Expr, Leaf, operands
from rankopt.program import aten


def keeps_rows_apart(expr: Expr) -> bool:
    """Whether a call gives row i of its result from row i of its operands, and depends on no number of rows."""
    if isinstance(expr.target, Leaf) or expr.origin.rule != "opaque":
        return True
    if expr.target is operator.getitem:
        return True  # as far as the call whose result it takes
    if expr.target in SHAPED:
        return _same_place(expr, expr.args[0])
    read = list(operands((expr.args, expr.kwargs)))
    if any(x.shape is None for x in read):
        counted = any(x.shape is None for x in operands((expr.args[1:], expr.kwargs)))
        return expr.target in FILLED and not counted  # as a size, and not as a number to compute with
    check = CHECKS.get(expr.target)
    if check is None and is_pointwise(expr.target):
        check = _aligned
    return check is not None and check(expr)


def row_dim(expr: Expr) -> int | None:
    """The dim of a tensor that counts rows, if there is one that does and nothing else."""
    if expr.shape is None:
        return None
    found = [dim for dim, size in enumerate(expr.shape) if isinstance(size, Rows)]
    return found[0] if len(found) == 1 and expr.dims[found[0]] == Rows() else None


def _with_rows(expr: Expr) -> list[Expr]:
    return [x for x in operands((expr.args, expr.kwargs)) if any(isinstance(size, Rows) for size in x.shape or ())]


def _aligned(expr: Expr) -> bool:
    """Elementwise: the rows of all operands meet in one dim."""
    return _counted_back(expr) is not None


def _counted_back(expr: Expr) -> int | None:
    """The row dim of result and operands, counted from the last, where it is one."""
    places = {None if (dim := row_dim(x)) is None else dim - len(x.dims) for x in (expr, *_with_rows(expr))}
    return places.pop() if len(places) == 1 else None


def _same_place(expr: Expr, x: Expr) -> bool:
    """A reshape or broadcast that leaves the rows where they are in memory: the same number of places behind them."""
    dims = row_dim(expr), row_dim(x)
    if dims[0] is None:
        return False
    if dims[1] is None:
        return not _with_rows(expr)  # the broadcast of what has no rows
    if expr.target in (aten.expand.default, aten.repeat.default):
        return dims[0] - len(expr.dims) == dims[1] - len(x.dims)
    return math.prod(expr.dims[dims[0] + 1 :]) == math.prod(x.dims[dims[1] + 1 :])  # type: ignore[arg-type]


def _moved(expr: Expr) -> bool:
    """A permutation: the rows are still one dim."""
    return row_dim(expr) is not None and row_dim(expr.args[0]) is not None


def _along(position: int, default: int | None = None) -> Callable[[Expr], bool]:
    """An op along the dim, or dims, that stand at `position`: not that of the rows."""

    def check(expr: Expr) -> bool:
        first = expr.args[0]
        tensors = list(first) if isinstance(first, tuple | list) else [first]
        dim = expr.args[position] if len(expr.args) > position else expr.kwargs.get("dim", default)
        dims = list(dim) if isinstance(dim, tuple | list) else [dim]
        rows = {row_dim(x) for x in tensors}
        if not dims or None in dims or len(rows) != 1 or None in rows or _with_rows(expr) != tensors:
            return False
        ndim = len(tensors[0].dims) + (expr.target is aten.stack.default)
        if any(int(d) % ndim in rows for d in dims if d is not None):
            return False
        return expr.shape is None or row_dim(expr) is not None

    return check


def _product(expr: Expr) -> bool:
    """A matrix product: rows are neither summed over nor crossed with rows."""
    a, b = expr.args[-2:]
    found = _counted_back(expr)
    if found is None or len(_with_rows(expr)) == 0 or found == -1:
        return False
    rows = [x for x in (a, b) if row_dim(x) is not None]
    return found < -2 or (rows == [a] and not any(isinstance(size, Rows) for size in b.dims))


def _first_only(expr: Expr) -> bool:
    """A layer with weights: rows in the first operand alone, in its first dim."""
    return _with_rows(expr) == [expr.args[0]] and row_dim(expr.args[0]) == 0 and len(expr.args[0].dims) > 1


def _normalised(expr: Expr) -> bool:
    """Layer norm, over the last dims."""
    x, sizes = expr.args[0], expr.args[1]
    dim = row_dim(x)
    return _with_rows(expr) == [x] and dim is not None and dim < len(x.dims) - len(sizes)


def _looked_up(expr: Expr) -> bool:
    """Rows of a table that all rows share."""
    return _with_rows(expr) == [expr.args[1]] and row_dim(expr.args[1]) is not None


def _attention(expr: Expr) -> bool:
    """Attention: rows among the batch dims."""
    found = _counted_back(expr)
    return found is not None and found < -2


def _unsqueezed(expr: Expr) -> bool:
    return row_dim(expr) is not None


def _sliced(expr: Expr) -> bool:
    """A slice of another dim, or all of the rows: `x[:, index]` begins with one."""
    x, *_, end = expr.args
    whole = len(expr.args) == 4 and expr.args[1:3] == (0, 0) and isinstance(end, int) and end >= sys.maxsize
    return row_dim(expr) is not None if whole and row_dim(x) == 0 else _along(1, 0)(expr)


def _indexed(expr: Expr) -> bool:
    """`x[:, index]`: rows lead, and no index has any."""
    x, indices = expr.args[0], expr.args[1]
    return row_dim(x) == 0 == row_dim(expr) and indices[0] is None and _with_rows(expr) == [x]


def _gathered(expr: Expr) -> bool:
    """gather along another dim, its index aligned with the tensor."""
    found = _counted_back(expr)
    return found is not None and expr.args[1] % len(expr.dims) != found + len(expr.dims)


def _summed(expr: Expr) -> bool:
    """An einsum in which all rows have one letter, which the result keeps."""
    equation, tensors = expr.args[0].replace(" ", ""), expr.args[1]
    if "." in equation or "->" not in equation or row_dim(expr) is None:
        return False
    names, result = equation.split("->")
    letters = {result[row_dim(expr)]}
    for name, x in zip(names.split(","), tensors, strict=True):
        dims = [dim for dim, size in enumerate(x.dims) if isinstance(size, Rows)]
        letters |= {name[dim] for dim in dims}
        if any(name.count(name[dim]) > 1 for dim in dims):
            return False
    return len(letters) == 1


def _cell(expr: Expr) -> bool:
    """One step of a recurrence: rows lead in all that has any."""
    return all(row_dim(x) == 0 for x in _with_rows(expr))


def _recurrence(expr: Expr) -> bool:
    """A recurrence over another dim than the rows': `f(x, state, ..., batch_first)`."""
    x, *states = _with_rows(expr)
    batch_first = expr.args[-1] is True
    return row_dim(x) == (0 if batch_first else 1) and x is expr.args[0] and all(row_dim(s) == 1 for s in states)


SHAPED = frozenset(
    {
        aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.flatten.using_ints,
        aten.unflatten.int, aten.expand.default, aten.repeat.default,
    }
)  # fmt: skip
"""Calls to which the number of rows is given as a size."""

FILLED = frozenset({aten.zeros.default, aten.ones.default, aten.full.default})
"""Calls that make as many rows as they are told, all the same."""

ALONG_FIRST = (
    aten.select.int, aten.narrow.default, aten.index_select.default, aten.flip.default, aten.logsumexp.default,
    aten.softmax.int, aten._softmax.default, aten._safe_softmax.default, aten.log_softmax.int,
    aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default, aten.prod.dim_int,
    aten.any.dim, aten.all.dim, aten.cumsum.default, aten.cumprod.default, aten.max.dim, aten.min.dim,
    aten.argmax.default, aten.argmin.default,
)  # fmt: skip
"""Calls `f(x, dim, ...)`."""

CHECKS: dict[Any, Callable[[Expr], bool]] = {
    **dict.fromkeys(ALONG_FIRST, _along(1)),
    aten.permute.default: _moved, aten.transpose.int: _moved, aten.t.default: _moved, aten.movedim.int: _moved,
    aten.unsqueeze.default: _unsqueezed, aten.squeeze.dim: _moved, aten.squeeze.dims: _moved,
    aten.slice.Tensor: _sliced, aten.index.Tensor: _indexed, aten.gather.default: _gathered,
    aten.cat.default: _along(1, 0), aten.stack.default: _along(1, 0), aten.unbind.int: _along(1, 0),
    aten.split.Tensor: _along(2, 0), aten.split_with_sizes.default: _along(2, 0), aten.chunk.default: _along(2, 0),
    aten.topk.default: _along(2, -1), aten.sort.default: _along(1, -1), aten.linalg_vector_norm.default: _along(2),
    aten.mm.default: _product, aten.bmm.default: _product, aten.matmul.default: _product,
    aten.addmm.default: _product, aten.baddbmm.default: _product, aten.einsum.default: _summed,
    aten.linear.default: _first_only, aten.conv1d.default: _first_only, aten.convolution.default: _first_only,
    aten.batch_norm.default: _first_only, aten._native_batch_norm_legit_no_training.default: _first_only,
    aten.layer_norm.default: _normalised, aten.embedding.default: _looked_up,
    aten.scaled_dot_product_attention.default: _attention,
    aten.gru_cell.default: _cell, aten.lstm_cell.default: _cell,
    aten.gru.input: _recurrence, aten.lstm.input: _recurrence,
}  # fmt: skip
"""When an op of the model's own keeps rows apart, by its kind."""
