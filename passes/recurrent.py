"""Recurrent cells are linear layers and gates, each by its own law.

gates = (W x + b) + (U h + d)        a state h of the context meets U once per request, whatever x is
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankopt.passes.elementwise import add, apply, mul, sub
from rankopt.passes.gather import take
from rankopt.passes.linear import linear
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Value
from rankopt.workspace import Workspace


@rule(aten.gru_cell.default, law="gates = (W x + b) + (U h + d)")
def gru_cell(
    w: Workspace,
    x: Value,
    h: Value,
    w_x: Value,
    w_h: Value,
    b_x: Value | None = None,
    b_h: Value | None = None,
) -> Value:
    """`[.., i], [.., d] -> [.., d]`: `n + z (h - n)`, `n = tanh(W x + r U h)`, by gates r (reset) and z (update)."""
    of_x = _blocks(w, linear(w, x, w_x, b_x), 3)
    of_h = _blocks(w, linear(w, h, w_h, b_h), 3)
    reset, update = (apply(w, aten.sigmoid.default, add(w, a, b)) for a, b in zip(of_x[:2], of_h[:2], strict=True))
    new = apply(w, aten.tanh.default, add(w, of_x[2], mul(w, reset, of_h[2])))
    return add(w, new, mul(w, update, sub(w, h, new)))


@rule(aten.lstm_cell.default, law="gates = (W x + b) + (U h + d)")
def lstm_cell(
    w: Workspace,
    x: Value,
    state: Sequence[Value],
    w_x: Value,
    w_h: Value,
    b_x: Value | None = None,
    b_h: Value | None = None,
) -> tuple[Value, Value]:
    """`[.., i], ([.., d], [.., d]) -> ([.., d], [.., d])`: `c' = f c + i g`, `h' = o tanh(c')`."""
    h, c = state
    gates = add(w, linear(w, x, w_x, b_x), linear(w, h, w_h, b_h))
    i, f, g, o = _blocks(w, gates, 4)
    keep, write, read = (apply(w, aten.sigmoid.default, gate) for gate in (f, i, o))
    cell = add(w, mul(w, keep, c), mul(w, write, apply(w, aten.tanh.default, g)))
    return mul(w, read, apply(w, aten.tanh.default, cell)), cell


def _blocks(w: Workspace, x: Value, count: int) -> list[Value]:
    """The last dim in `count` equal ranges."""
    size = x.shape[-1]
    if not isinstance(size, int):
        raise Refusal("rows are cut apart")
    places = np.arange(size).reshape(count, -1)
    return [take(w, x, x.ndim - 1, block) for block in places]
