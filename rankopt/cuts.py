"""Columns of one tensor, taken together: the same numbers, fewer calls.

    cast(x[:, 0:1]), cast(x[:, 1:2]), ...  ->  y = cast(x); y[:, 0:1], y[:, 1:2], ...
    x[:, 0:1], x[:, 1:2], x[:, 3:4], ...   ->  split(x, [1, 1, 1, 1, ...])

Models with packed rows begin so: ids that came as floats, one by one. Of a finished program, whatever laws led to it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from rankopt.expressions import Expr, Stage, operands, reachable
from rankopt.program import Program, aten, window

LEAST = 4
"""Slices that are worth a split."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The places `start` to `end` of `dim` of a tensor, by `call`, on the tensor first."""

    expr: Expr
    call: Callable[..., Any]
    dim: int
    start: int
    end: int

    @property
    def source(self) -> tuple[int, int]:
        """What is cut and where, to group by."""
        return self.expr.args[0].serial, self.dim


def together(program: Program, outputs: Sequence[Expr]) -> list[Expr]:
    """The outputs of a program with columns cast and cut together."""
    return _split(program, _cast(program, outputs))


def _cast(program: Program, outputs: Sequence[Expr]) -> list[Expr]:
    """Casts that take most of a tensor, cut by cut, become one of the tensor."""
    exprs = reachable(outputs)
    casts = [(expr, cut, dtype) for expr in exprs if (dtype := _cast_to(expr)) and (cut := _cut(expr.args[0]))]
    forms: dict[int, Form] = {}
    for (_, dtype), found in _grouped(casts, lambda item: (item[1].source, item[2])):
        if len(found) > 1 and _is_most(cut for _, cut, _ in found):
            forms.update({expr.serial: (cut, partial(_cut_of_cast, program, cut, dtype)) for expr, cut, _ in found})
    return _rebuilt(program, exprs, outputs, forms)


def _cut_of_cast(program: Program, cut: Cut, dtype: torch.dtype, whole: Expr) -> Expr:
    cast = program.call(aten._to_copy.default, whole, shape=whole.shape, out=dtype, dtype=dtype)
    return program.call(cut.call, cast, *cut.expr.args[1:], shape=cut.expr.shape, out=dtype)


def _split(program: Program, outputs: Sequence[Expr]) -> list[Expr]:
    """Slices that take most of a tensor become parts of it."""
    exprs = reachable(outputs)
    cuts = [cut for expr in exprs if expr.target is aten.slice.Tensor and (cut := _cut(expr))]
    forms: dict[int, Form] = {}
    for _, found in _grouped(cuts, lambda cut: cut.source):
        found.sort(key=lambda cut: cut.start)
        apart = all(cut.end <= following.start for cut, following in pairwise(found))
        if len(found) < LEAST or not apart or not _is_most(found):
            continue
        whole = found[0].expr.args[0].dims[found[0].dim]
        bounds = sorted({0, whole, *(bound for cut in found for bound in (cut.start, cut.end))})
        forms.update({cut.expr.serial: (cut, partial(_part_of_split, program, cut, bounds)) for cut in found})
    return _rebuilt(program, exprs, outputs, forms)


def _part_of_split(program: Program, cut: Cut, bounds: Sequence[int], whole: Expr) -> Expr:
    sizes = [end - start for start, end in pairwise(bounds)]
    split = program.call(aten.split_with_sizes.default, whole, sizes, cut.dim, shape=None, out=whole.dtype)
    return program.call(operator.getitem, split, bounds.index(cut.start), shape=cut.expr.shape, out=whole.dtype)


Form = tuple[Cut, Callable[[Expr], Expr]]
"""What a call cuts, or casts when cut, and how it is made of the tensor that is cut."""


def _rebuilt(program: Program, exprs: Sequence[Expr], outputs: Sequence[Expr], forms: Mapping[int, Form]) -> list[Expr]:
    """The outputs of `exprs`, of which some have another form; what does not depend on those stays as it is."""
    own: dict[int, Expr] = {}
    origin = program.origin
    for expr in exprs:
        program.origin = expr.origin
        new = expr
        if expr.serial in forms:
            cut, made_of = forms[expr.serial]
            new = made_of(own[cut.expr.args[0].serial])
        elif any(own[x.serial] is not x for x in operands((expr.args, expr.kwargs))):
            new = program.again(expr, own)
        own[expr.serial] = new
    program.origin = origin
    return [own[expr.serial] for expr in outputs]


def _cast_to(expr: Expr) -> torch.dtype | None:
    """The type that a call casts to, if that is all it does."""
    if expr.target is aten._to_copy.default and set(expr.kwargs) == {"dtype"}:
        return expr.dtype
    return expr.dtype if expr.target is aten.to.dtype and len(expr.args) == 2 and not expr.kwargs else None


def _cut(expr: Any) -> Cut | None:
    """What a call cuts out of a tensor, if that is known when compiling and runs every time."""
    if not isinstance(expr, Expr) or expr.kwargs or expr.stage is Stage.WEIGHT:
        return None
    if expr.target not in (aten.slice.Tensor, aten.select.int):
        return None
    x, *where = expr.args
    if not where or not all(isinstance(item, int) for item in where):
        return None
    dim = where[0] % len(x.dims)
    size = x.dims[dim]
    if not isinstance(size, int):
        return None
    if expr.target is aten.select.int:
        start = where[1] % size
        return Cut(expr, aten.select.int, dim, start, start + 1)
    start, end, step = window(*where[1:]).indices(size)
    return Cut(expr, aten.slice.Tensor, dim, start, end) if step == 1 and start < end else None


def _is_most(cuts: Iterable[Cut]) -> bool:
    """Whether cuts of one tensor take half of it or more."""
    found = {(cut.start, cut.end): cut.expr.args[0].dims[cut.dim] for cut in cuts}
    return bool(2 * sum(end - start for start, end in found) >= max(found.values()))


def _grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())
