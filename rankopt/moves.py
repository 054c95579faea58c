"""Moves of a model that is left as it stands, in a shorter form: the same numbers, fewer calls.

    x[:]                    ->  x
    reshape(reshape(x))     ->  reshape(x)
    gather(x, p)[a:b]       ->  x[p[a]:p[b]]                where p[a:b] follow each other
    cat([x, y])[a:b]        ->  x[a:b]                      where all of it is of x
    gather(x, p).new_zeros  ->  x.new_zeros                 and of other moves of x: only its type is asked
    zeros + x               ->  x                           where they are alike
    W @ x[..., k, 1]        ->  linear(x[..., k], W)[..., None]: one product for all of these vectors
    stack([x, y], d)        ->  reshape(cat([x, y], d))     where a backend makes a call of each part of a stack
    linear(x)               ->  reshape(linear(reshape(x))) where layers are quicker over two dims, as is the layer norm
                                                            of a sum

A packed input is the reason for most: its columns, put back into the model's order, are sliced at once. A layer norm
that a rewritten model keeps is written like that, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rankopt.axes import Rows, joined
from rankopt.expressions import Expr
from rankopt.program import aten, is_range, window
from rankopt.sizes import symbolic_size
from rankopt.workspace import Workspace

WHOLE: tuple[tuple[int | None, ...], ...] = ((), (0, sys.maxsize), (None, None))
"""Bounds of a slice that cuts nothing off, as `x[:]` is captured."""

Places = np.ndarray[Any, np.dtype[np.int64]]

BLANK = frozenset({aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default})
"""New tensors of the type of another, and on its device, which is not read."""

MOVES = frozenset(
    {aten.index_select.default, aten.slice.Tensor, aten.select.int, aten.cat.default, aten.expand.default}
    | {aten.reshape.default, aten.permute.default}
)
"""Calls whose result has the type of their first operand."""

JOINED = frozenset({aten.index_select.default, aten.cat.default})
"""Calls that put together places from elsewhere."""

SUMS = frozenset({aten.add.Tensor, aten.baddbmm.default})
"""Calls that end with an addition, which ONNX Runtime joins with the layer norm behind it."""

ZEROS = frozenset({aten.new_zeros.default, aten.zeros.default, aten.zeros_like.default})


def source(x: Expr) -> Expr:
    """A tensor of which moves have made `x`: of the same type, which is all that is asked for a new tensor."""
    while x.target in MOVES:
        first = x.args[0] if isinstance(x.args[0], Expr) else x.args[0][0]
        if first.dtype != x.dtype:  # a concatenation promotes
            break
        x = first
    return x


def shorter_move(
    w: Workspace, rows: Any, target: Callable[..., Any], args: tuple[Any, ...], meta: torch.Tensor
) -> Expr | None:
    """The result of `target(*args)`, which is like `meta`, if there is a shorter form of it. `rows`: see `sizes`."""
    match target:
        case aten.reshape.default if args[0].shape is not None:
            sizes = [symbolic_size(size, rows) for size in meta.shape]
            known = [size for size in sizes if size is not None]
            # a size that is left open, as `view(0, -1)`, cannot be found without rows
            return w.program.view(args[0], known) if len(known) == len(sizes) else None
        case aten.stack.default if w.profile.stacked_apart:
            dim = (args[1] if len(args) > 1 else 0) % meta.ndim
            return w.program.stack(args[0], dim, joined=True)
        case aten.matmul.default if len(args[0].dims) == 2 and len(args[1].dims) > 2 and args[1].dims[-1] == 1:
            return None if _has_open_sizes(args[1]) else _of_vectors(w, *args)
        case aten.layer_norm.default:
            return layer_norm(w, *args)
        case aten.linear.default if w.profile.flat_layers and len(args) == 3:
            return _linear(w, *args)
        case aten.slice.Tensor if args[2:] in WHOLE:
            x: Expr = args[0]
            return x
        case aten.add.Tensor if len(args) == 2 and _is_nothing(*args):
            other: Expr = args[1]
            return other
        case aten.slice.Tensor | aten.select.int if args[0].target in JOINED:
            return _cut(w, target, *args)
    return None


def layer_norm(w: Workspace, x: Expr, sizes: Sequence[int], *given: Any) -> Expr:
    """Torch's layer norm over the last dims, whose sizes are given."""
    joins = w.profile.flat_layers and len(sizes) == 1 and len(x.dims) == 3 and x.target in SUMS
    rows = _flat(w, x) if joins else x
    call = w.program.call(aten.layer_norm.default, rows, sizes, *given, shape=rows.dims, out=x.dtype)
    return w.program.view(call, x.dims)


def _linear(w: Workspace, x: Expr, weight: Expr, bias: Expr) -> Expr:
    rows, out = _flat(w, x), weight.dims[0]
    shape = (*rows.dims[:-1], out)
    call = w.program.call(aten.linear.default, rows, weight, bias, shape=shape, out=x.dtype)
    return w.program.view(call, (*x.dims[:-1], out))


def _of_vectors(w: Workspace, matrix: Expr, vectors: Expr) -> Expr:
    """What torch.matmul does itself where the matrix may need a gradient; for any other it repeats the matrix."""
    rows = w.program.view(vectors, vectors.dims[:-1])
    shape = (*rows.dims[:-1], matrix.dims[0])
    product = w.program.call(aten.linear.default, rows, matrix, shape=shape, out=vectors.dtype)
    return w.program.view(product, (*shape, 1))


def _flat(w: Workspace, x: Expr) -> Expr:
    """A tensor over two dims, if no two of its dims are found at run time."""
    if not isinstance(x.dims[-1], int) or _has_open_sizes(x):
        return x
    return w.program.view(x, (joined(x.dims[:-1]), x.dims[-1]))


def _has_open_sizes(x: Expr) -> bool:
    """Whether two sizes of a tensor are known at run time alone, of which a view can leave one open."""
    return sum(isinstance(size, Rows) for size in x.dims) > 1


def _cut(w: Workspace, target: Callable[..., Any], x: Expr, dim: Any = 0, *bounds: Any) -> Expr | None:
    """A slice of moved places, or one of them, from where they came from, if they follow each other there."""
    at = dim % len(x.dims)
    if not isinstance(x.dims[at], int) or not all(isinstance(bound, int | None) for bound in bounds):
        return None
    origin, places = w.program.places(x, at)
    kept = np.atleast_1d(places[bounds[0] if target is aten.select.int else window(*bounds)])
    if not is_range(kept):
        return None
    origin, kept = _part(origin, at, kept)
    if target is aten.select.int:
        shape = (*x.dims[:at], *x.dims[at + 1 :])
        return w.program.call(target, origin, at, int(kept[0]), shape=shape, out=x.dtype)
    return w.program.index_select(origin, at, kept)


def _part(x: Expr, at: int, places: Places) -> tuple[Expr, Places]:
    """The part of a concatenation that places which follow each other are of, and the places in it."""
    if x.target is not aten.cat.default or (x.args[1] if len(x.args) > 1 else 0) % len(x.dims) != at:
        return x, places
    start = 0
    for part in x.args[0]:
        if len(part.dims) != len(x.dims) or not isinstance(part.dims[at], int) or part.dtype != x.dtype:
            break
        end = start + part.dims[at]
        if start <= places[0] and places[-1] < end:
            return _part(part, at, places - start)
        start = end
    return x, places


def _is_nothing(zeros: Any, x: Any) -> bool:
    """Whether a sum with new zeros is what is added to them."""
    tensors = isinstance(zeros, Expr) and isinstance(x, Expr)
    return tensors and zeros.target in ZEROS and zeros.shape == x.shape and zeros.dtype == x.dtype
