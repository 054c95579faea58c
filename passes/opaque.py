"""Ops that are known not to be improvable, each with the reason that reports show.

They are computed as the model wrote them. Listing them here gives a better answer than "no rule".
"""

from __future__ import annotations

import operator
from typing import Any, cast

import torch

from rankopt.axes import ROW, Rows
from rankopt.dims import from_tensor
from rankopt.materialise import to_tensor
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Value
from rankopt.workspace import Workspace


@rule(aten.gru_cell.default, aten.lstm_cell.default, aten.gru.input, aten.lstm.input, law="none")
def recurrent(w: Workspace, *args: Any, **kwargs: Any) -> None:
    """A recurrence mixes its inputs at every step."""
    raise Refusal("a recurrent cell mixes context and target at every step")


@rule(
    aten.rand.default,
    aten.randn.default,
    aten.rand_like.default,
    aten.randn_like.default,
    aten.bernoulli.p,
    law="none",
)
def random(w: Workspace, *args: Any, **kwargs: Any) -> None:
    """A random op must draw as many numbers as the model does."""
    raise Refusal("a random op draws different numbers for each row")


ORDERED: tuple[tuple[Any, int], ...] = (
    (aten.topk.default, 1),
    (aten.sort.default, 0),
    (aten.max.dim, 0),
    (aten.min.dim, 0),
)
"""Ops `(values, places) = f(x, ..., dim, ...)` that order the elements along one dim; where `dim` stands behind x."""

for _target, _position in ORDERED:

    def _ordered(w: Workspace, x: Value, *args: Any, _target: Any = _target, _position: int = _position) -> Any:
        """An order among elements ties those of different ranks together; of context alone it is found once."""
        dim = args[_position] if len(args) > _position else -1
        if x.node.has_rows or x.groups[:1] != ((ROW,),) or x.dim(dim) == 0:
            raise Refusal("an order among elements of different ranks")
        tensor = to_tensor(w, x, tiled=False)  # [1, ...]
        shapes = _target(torch.empty(cast("tuple[int, ...]", tensor.dims), dtype=x.dtype, device="meta"), *args)
        both = w.program.call(_target, tensor, *args, shape=None, out=x.dtype)
        results: list[Value] = []
        for place, like in enumerate(shapes):
            shape = tuple(like.shape)
            item = w.program.call(operator.getitem, both, place, shape=shape, out=like.dtype)
            results.append(from_tensor(w, item, (Rows(), *shape[1:])))
        return tuple(results)

    _ordered.__name__ = "ordered"
    rule(_target, law="order(expand(c)) = expand(order(c))")(_ordered)
