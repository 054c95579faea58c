"""Operations that mix rows, and others that no law knows."""

from __future__ import annotations

from collections.abc import Sequence

from properties.choices import Choices
from properties.operations.fitting import chosen, is_float, plain
from properties.recorder import Handle, Recorder, aten

from rankopt.axes import Rows


def opaque(r: Recorder, c: Choices, values: Sequence[Handle]) -> Handle | None:
    """Ops without a law, some of which mix rows."""
    x = chosen(c, values, is_float, lambda x: x.ndim and x.has_rows and x.tensors[0].numel())
    if x is None:
        return None
    rows = next(d for d, size in enumerate(x.shape) if isinstance(size, Rows))
    kind = c.integer(0, 9)
    if kind > 5:
        op = (aten.softmax.int, aten.logsumexp.default, aten.sum.dim_IntList, aten.flip.default)[kind - 6]
        return r.call(op, x, rows if op is aten.softmax.int else [rows])
    if kind == 0:
        return r.call(aten.cumsum.default, x, c.integer(0, x.ndim - 1))
    if kind == 1:
        return r.call(aten.mean.dim, x, [rows], c.flag())
    if kind == 2:
        return r.call(aten.sort.default, x, c.integer(0, x.ndim - 1))[0]
    if kind == 3 and plain(x):
        return r.call(aten.topk.default, x, 1, c.pick(plain(x)))[0]
    if kind == 4:
        return r.call(aten.roll.default, x, [1], [c.integer(0, x.ndim - 1)])
    return r.call(aten.amax.default, x, [rows], True)
