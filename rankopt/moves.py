"""Moves of a model that is left as it stands, in a shorter form: the same numbers, fewer calls.

    x[:]                    ->  x
    reshape(reshape(x))     ->  reshape(x)
    gather(x, p)[a:b]       ->  x[p[a]:p[b]]                where p[a:b] follow each other
    stack([x, y], d)        ->  reshape(cat([x, y], d))     where a backend makes a call of each part of a stack
    linear(x)               ->  reshape(linear(reshape(x))) where layers are quicker over two dims, as is the layer norm
                                                            of a sum

A packed input is the reason for the first three: its columns, put back into the model's order, are sliced at once. A
layer norm that a rewritten model keeps is written like that, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from rankopt.axes import Rows, joined
from rankopt.program import Expr, aten, is_range
from rankopt.sizes import symbolic_size
from rankopt.workspace import Workspace

WHOLE: tuple[tuple[int | None, ...], ...] = ((), (0, sys.maxsize), (None, None))
"""Bounds of a slice that cuts nothing off, as `x[:]` is captured."""


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
        case aten.layer_norm.default:
            return layer_norm(w, *args)
        case aten.linear.default if w.profile.flat_layers and len(args) == 3:
            return _linear(w, *args)
        case aten.slice.Tensor if args[2:] in WHOLE:
            x: Expr = args[0]
            return x
        case aten.slice.Tensor | aten.select.int if args[0].target is aten.index_select.default:
            return _cut_of_gather(w, target, *args)
    return None


def layer_norm(w: Workspace, x: Expr, sizes: Sequence[int], *given: Any) -> Expr:
    """Torch's layer norm over the last dims, whose sizes are given."""
    joins = w.profile.flat_layers and len(sizes) == 1 and len(x.dims) == 3 and x.target is aten.add.Tensor
    source = _flat(w, x) if joins else x
    call = w.program.call(aten.layer_norm.default, source, sizes, *given, shape=source.dims, out=x.dtype)
    return w.program.view(call, x.dims)


def _linear(w: Workspace, x: Expr, weight: Expr, bias: Expr) -> Expr:
    rows, out = _flat(w, x), weight.dims[0]
    shape = (*rows.dims[:-1], out)
    call = w.program.call(aten.linear.default, rows, weight, bias, shape=shape, out=x.dtype)
    return w.program.view(call, (*x.dims[:-1], out))


def _flat(w: Workspace, x: Expr) -> Expr:
    """A tensor over two dims, if no two of its dims are found at run time."""
    if not isinstance(x.dims[-1], int) or sum(isinstance(size, Rows) for size in x.dims) > 1:
        return x
    return w.program.view(x, (joined(x.dims[:-1]), x.dims[-1]))


def _cut_of_gather(w: Workspace, target: Callable[..., Any], x: Expr, dim: Any = 0, *bounds: Any) -> Expr | None:
    """A slice of gathered places that follow each other, or one of them: a cut of where they were gathered from."""
    at = dim % len(x.dims)
    if not isinstance(x.dims[at], int) or not all(isinstance(bound, int | None) for bound in bounds):
        return None
    source, places = w.program.places(x, at)
    if target is aten.select.int:
        shape = (*x.dims[:at], *x.dims[at + 1 :])
        return w.program.call(target, source, at, int(places[bounds[0]]), shape=shape, out=x.dtype)
    kept = places[slice(*bounds)]
    return w.program.index_select(source, at, kept) if is_range(kept) else None
