"""Which calls a compiler computes inside the one that reads them, and never writes.

Where all that lies between two products becomes loops (torch.compile, AOTInductor), an elementwise call or a look-up
whose only reader is elementwise, or reduces, is part of its reader's loop; one that is only concatenated is computed in
its place there.
"""

from __future__ import annotations

from collections.abc import Sequence

from rankopt.cost import FREE, REDUCTIONS, aten, is_pointwise
from rankopt.expressions import Expr, operands

LOOKUPS = frozenset({aten.index_select.default, aten.embedding.default})
LOOPS = REDUCTIONS | {aten.cat.default, aten.stack.default}


def inside_readers(exprs: Sequence[Expr]) -> frozenset[int]:
    """The serials of those calls; `exprs` in the order in which they were built. Views are seen through."""
    readers: dict[int, Expr | None] = {}
    inside: set[int] = set()
    for expr in reversed(exprs):
        reader = readers.get(expr.serial)  # None where nothing reads it, or more than one call
        if reader is not None and _is_looped(expr) and (_is_looped(reader) or reader.target in LOOPS):
            inside.add(expr.serial)
        through = reader if expr.target in FREE else expr
        for operand in operands((expr.args, expr.kwargs)):
            readers[operand.serial] = None if operand.serial in readers else through
    return frozenset(inside)


def _is_looped(expr: Expr) -> bool:
    return expr.shape is not None and (expr.target in LOOKUPS or is_pointwise(expr.target))
