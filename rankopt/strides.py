"""How a tensor of the program lies in memory, seen through views.

Permuting dims moves nothing; it is paid for where the permuted tensor is read: by a reshape that merges dims which are
not neighbours in memory, by an elementwise call that writes its result in another order, by a concatenation. Products
read a transposed matrix as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankopt.axes import Rows, Size, elements
from rankopt.expressions import Expr
from rankopt.program import aten

RESHAPES = frozenset({aten.reshape.default, aten.flatten.using_ints, aten.view.default})
PERMUTES = frozenset({aten.permute.default, aten.transpose.int, aten.t.default})

Rank = tuple[int, ...]
"""Place of a dim in memory; dims sorted by rank go from the outermost to the innermost."""


@dataclass(frozen=True, slots=True)
class Move:
    """A copy into another order of dims: how many elements, in runs of how many that stay together.

    `planes`: how many matrices are transposed, where nothing else moves; else 0.
    """

    elements: int
    run: int
    planes: int


def ranks(expr: Expr) -> list[Rank]:
    """The rank of each dim. What is not a view is written in the order of its dims."""
    natural: list[Rank] = [(dim,) for dim in range(len(expr.dims))]
    if expr.target in PERMUTES:
        source = ranks(expr.args[0])
        return [source[dim] for dim in order(expr)]
    if expr.target in RESHAPES:
        source = ranks(expr.args[0])
        return _regrouped(source, expr.args[0].dims, expr.dims) or natural
    if expr.target is aten.slice.Tensor:
        return ranks(expr.args[0])
    if expr.target is aten.select.int:
        source = ranks(expr.args[0])
        dim = int(expr.args[1]) % len(source)
        return [*source[:dim], *source[dim + 1 :]]
    return natural


def order(permuted: Expr) -> list[int]:
    """Which dim of its operand each dim of a permuted tensor is."""
    dims = list(range(len(permuted.dims)))
    if permuted.target is aten.permute.default:
        return [dim % len(dims) for dim in permuted.args[1]]
    first, second = (0, 1) if permuted.target is aten.t.default else permuted.args[1:3]
    dims[first], dims[second] = dims[second], dims[first]
    return dims


def reshape_copies(expr: Expr) -> bool:
    """Whether a reshape has to move memory: it merges dims that are not neighbours there, or that are broadcast."""
    source = expr.args[0]
    if source.target is aten.expand.default:
        return True
    return _regrouped(ranks(source), source.dims, expr.dims) is None


def move(tensor: Expr, rows: int) -> Move | None:
    """What it takes to bring a view into the order of its dims; None if it lies so."""
    known = [(rank, size) for rank, size in zip(ranks(tensor), tensor.dims, strict=True) if size != 1]
    placed = sorted(range(len(known)), key=lambda i: known[i][0])
    if placed == list(range(len(known))):
        return None
    run, last = 1, len(known)
    while placed[last - 1] == last - 1:
        last -= 1
        run *= elements((known[last][1],), rows)
    outer = _outside_of_planes(placed)
    planes = 0 if outer is None else elements([size for _, size in known[:outer]], rows)
    return Move(elements(tensor.dims, rows), run, planes)


def _outside_of_planes(placed: Sequence[int]) -> int | None:
    """How many dims stay outermost, if the others, `placed` in the order of memory, are two blocks exchanged."""
    start = 0
    while placed[start] == start:
        start += 1
    split = placed.index(start)
    swapped = [*range(start + len(placed) - split, len(placed)), *range(start, start + len(placed) - split)]
    return start if list(placed[start:]) == swapped else None


def _regrouped(source: Sequence[Rank], before: Sequence[Size], after: Sequence[Size]) -> list[Rank] | None:
    """Ranks after a reshape, if every dim that it merges lies next to the one before it in memory; else None."""
    place = {rank: i for i, rank in enumerate(sorted(r for r, size in zip(source, before, strict=True) if size != 1))}
    dims = [(place[rank], _static(size)) for rank, size in zip(source, before, strict=True) if size != 1]
    result: list[Rank] = []
    start = 0
    for size in map(_static, after):
        if size == 1:
            result.append((-1,))
            continue
        have, end = 1, start
        while have < size and end < len(dims):
            have *= dims[end][1]
            end += 1
        run = [at for at, _ in dims[start:end]]
        if have % size or run != list(range(run[0], run[0] + len(run))):
            return None
        inside = math.prod(length for _, length in dims[start:end]) // size
        result.append((run[-1] if inside > 1 else run[0], -inside))
        if inside > 1:
            dims = [*dims[: end - 1], (dims[end - 1][0], inside), *dims[end:]]
            start = end - 1
        else:
            start = end
    return result


def _static(size: Size) -> int:
    """A size as a number; rows count as a prime, which divides nothing by accident."""
    return size.times * 7919 if isinstance(size, Rows) else size
