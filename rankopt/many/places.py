"""Where the rows of a tensor are: in which dim, and what is folded into that dim with them.

Reading a dim of size `k * N` major to minor, it is `before` blocks, of N rows, of `after` elements each. In a reshape
the rows keep their distance in memory, which says where they end up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankopt.axes import Rows, Shape
from rankopt.cost import RESHAPES
from rankopt.expressions import Expr, operands


@dataclass(frozen=True, slots=True)
class Place:
    """The rows are in `dim`, with `before` blocks outside of them and `after` elements inside."""

    dim: int
    before: int = 1
    after: int = 1

    @property
    def leads(self) -> bool:
        """Whether rows are what changes slowest, so that those of all requests are views of one tensor."""
        return self.dim == 0 and self.before == 1


class Places:
    """The place of the rows in every tensor of a graph, asked for in the order of the graph."""

    def __init__(self) -> None:
        self._known: dict[int, Place | None] = {}

    def of(self, expr: Expr) -> Place | None:
        """Where the rows are; None where there are none, several times N, or nobody knows how they were folded."""
        if expr.serial not in self._known:
            self._known[expr.serial] = self._find(expr)
        return self._known[expr.serial]

    def _find(self, expr: Expr) -> Place | None:
        dims = [dim for dim, size in enumerate(expr.shape or ()) if isinstance(size, Rows)]
        if len(dims) != 1:
            return None
        (dim,) = dims
        size = expr.dims[dim]
        assert isinstance(size, Rows)
        if size.times == 1:
            return Place(dim)
        read = [x for x in operands((expr.args, expr.kwargs)) if x.serial in self._known]
        if expr.target in RESHAPES:
            return self._reshaped(expr.args[0], expr.dims, dim, size.times)
        for x in read:
            place = self._known[x.serial]
            if place is not None and x.dims[place.dim] == size:
                return Place(dim, place.before, place.after)
        return None

    def _reshaped(self, x: Expr, dims: Shape, dim: int, times: int) -> Place | None:
        place = self._known.get(x.serial)
        if place is None:
            return None
        distance = place.after * _product(x.dims[place.dim + 1 :])
        inside = _product(dims[dim + 1 :])
        after, rest = divmod(distance, inside) if inside else (0, 1)
        if rest or not after or times % after:
            return None
        return Place(dim, times // after, after)


def _product(dims: Shape) -> int:
    return math.prod(size for size in dims if isinstance(size, int))
