"""Ops without a law of their own that treat each row alone: of the context alone, they run once per request.

    f(expand(c)) = expand(f(c))        for every f of which row i reads row i, and nothing else

Of context and target together such an op is computed as the model wrote it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from rankopt.axes import ROW, Rows, Shape
from rankopt.dims import from_tensor
from rankopt.materialise import to_tensor
from rankopt.passes.reductions import extremum, reduced_dims
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Value, freshen
from rankopt.workspace import Workspace

Condition = Callable[[int, Sequence[Any], Any], bool]
"""Whether an op treats rows alone that lie in a dim of its first operand, by that dim and the op's arguments."""


def _along(position: int, default: int = -1) -> Condition:
    """An op along the dim that stands at `position`: not that of the rows."""

    def holds(rows: int, args: Sequence[Any], kwargs: Any) -> bool:
        dim = args[position] if len(args) > position else kwargs.get("dim", default)
        return isinstance(dim, int) and bool(dim % args[0].ndim != rows)

    return holds


def _gather(rows: int, args: Sequence[Any], kwargs: Any) -> bool:
    """A gather along another dim, by an index that has its rows where the tensor has them."""
    return _along(1)(rows, args, kwargs) and args[2].groups[rows : rows + 1] == ((ROW,),)


def _first(rows: int, args: Sequence[Any], kwargs: Any) -> bool:
    """A layer over [R, ...]."""
    return rows == 0 and args[0].ndim > 2


def _recurrence(rows: int, args: Sequence[Any], kwargs: Any) -> bool:
    """A recurrence over another dim than the rows': `f(x, state, ..., batch_first)`."""
    return args[0].ndim == 3 and rows == (0 if args[-1] is True else 1)


ORDER = "an order among elements of different ranks"
RECURRENCE = "a recurrence mixes context and target at every step"
NEIGHBOURS = "neighbours of different ranks are mixed"

OPS: dict[Any, tuple[Condition, str]] = {
    aten.topk.default: (_along(2), ORDER),
    aten.sort.default: (_along(1), ORDER),
    aten.argsort.default: (_along(1), ORDER),
    aten.gather.default: (_gather, "the index differs between candidates"),
    aten.gru.input: (_recurrence, RECURRENCE),
    aten.lstm.input: (_recurrence, RECURRENCE),
    aten.max_pool1d.default: (_first, NEIGHBOURS),
    aten.max_pool2d.default: (_first, NEIGHBOURS),
    aten.avg_pool1d.default: (_first, NEIGHBOURS),
    aten.avg_pool2d.default: (_first, NEIGHBOURS),
}
"""Op -> when it treats rows alone, and why it is left as it is where context and target meet in it."""


def once(w: Workspace, target: Any, args: Sequence[Any], kwargs: Any, condition: Condition, reason: str) -> Any:
    """`target` on one row, if no operand differs between candidates. Raises Refusal with `reason` if one does."""
    values = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Value)]
    if any(value.node.has_rows for value in values):
        raise Refusal(reason)
    folded = any(ROW in value.axes and (ROW,) not in value.groups for value in values)
    rows = args[0].groups.index((ROW,)) if (ROW,) in args[0].groups else None
    if folded or rows is None or not condition(rows, args, kwargs):
        raise Refusal("rows are not kept apart")
    shapes = [_result_shapes(target, args, kwargs, count) for count in (1, 2)]
    one_args, one_kwargs = pytree.tree_map(lambda leaf: _one_row(w, leaf), (args, kwargs))
    return _results(w, target, one_args, one_kwargs, *shapes)


def _one_row(w: Workspace, leaf: Any) -> Any:
    return to_tensor(w, leaf, tiled=False) if isinstance(leaf, Value) else leaf


def _result_shapes(target: Any, args: Any, kwargs: Any, rows: int) -> Any:
    """What the op returns for so many rows, as tensors without data."""

    def stand_in(leaf: Any) -> Any:
        if not isinstance(leaf, Value):
            return leaf
        shape = [rows if isinstance(size, Rows) else size for size in leaf.shape]
        return torch.empty(shape, dtype=leaf.dtype, device="meta")

    args, kwargs = pytree.tree_map(stand_in, (args, kwargs))
    return target(*args, **kwargs)


def _results(w: Workspace, target: Any, args: Any, kwargs: Any, of_one: Any, of_two: Any) -> Any:
    """The results of a call on one row; the dim that grows with the number of rows counts them."""
    if isinstance(of_one, torch.Tensor):
        tensor = w.program.call(target, *args, shape=tuple(of_one.shape), out=of_one.dtype, **kwargs)
        return from_tensor(w, tensor, _logical(of_one, of_two))
    whole = w.program.call(target, *args, shape=None, out=of_one[0].dtype, **kwargs)
    results: list[Value] = []
    for i, (one, two) in enumerate(zip(of_one, of_two, strict=True)):
        item = w.program.call(operator.getitem, whole, i, shape=tuple(one.shape), out=one.dtype)
        results.append(from_tensor(w, item, _logical(one, two)))
    return tuple(results)


def _logical(one: torch.Tensor, two: torch.Tensor) -> Shape:
    return tuple(a if a == b else Rows() for a, b in zip(one.shape, two.shape, strict=True))


for _target, (_condition, _reason) in OPS.items():

    def _by_row(
        w: Workspace, *args: Any, _target: Any = _target, _condition: Condition = _condition, _reason: str = _reason,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """On the one row of the context."""
        return once(w, _target, args, kwargs, _condition, _reason)

    _by_row.__name__ = "once"
    rule(_target, law="f(expand(c)) = expand(f(c))")(_by_row)


# ------------------------------------------------------------------------------------------------------ extrema


for _target, _extreme, _join in (
    (aten.max.dim, aten.amax.default, aten.maximum.default),
    (aten.min.dim, aten.amin.default, aten.minimum.default),
):

    def _extremum(
        w: Workspace, x: Value, dim: int, keepdim: bool = False, *,
        _target: Any = _target, _extreme: Any = _extreme, _join: Any = _join,
    ) -> tuple[Value, Value]:  # fmt: skip
        """The extreme itself by parts; where it is, if anybody asks, from all of them together."""
        if not x.node.has_rows:
            found: tuple[Value, Value] = once(w, _target, (x, dim, keepdim), {}, _along(1), "")
            return found
        chosen = reduced_dims(x, dim)
        places = _places(w, _target, x, chosen[0], keepdim)
        return extremum(w, x, chosen, keepdim, _extreme, _join), places

    _extremum.__name__ = "extremum_with_place"
    rule(_target, law="max over cat(c, t) = max(max(c), max(t))")(_extremum)


def _places(w: Workspace, target: Any, x: Value, dim: int, keepdim: bool) -> Value:
    """On a copy of the value, which stays pending for all other readers."""
    tensor = to_tensor(w, freshen(w, x))
    kept: Shape = (1,) if keepdim else ()
    shape = (*tensor.dims[:dim], *kept, *tensor.dims[dim + 1 :])
    both = w.program.call(target, tensor, dim, keepdim, shape=None, out=x.dtype)
    return from_tensor(w, w.program.call(operator.getitem, both, 1, shape=shape, out=torch.int64))
