"""Ops that are known not to be improvable, each with the reason that reports show.

They are computed as the model wrote them. Listing them here gives a better answer than "no rule".
"""

from __future__ import annotations

from typing import Any

from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.workspace import Workspace


@rule(aten.gru_cell.default, aten.lstm_cell.default, aten.gru.input, aten.lstm.input, law="none")
def recurrent(w: Workspace, *args: Any, **kwargs: Any) -> None:
    """A recurrence mixes its inputs at every step."""
    raise Refusal("a recurrent cell mixes context and target at every step")


@rule(
    aten.rand.default, aten.randn.default, aten.rand_like.default, aten.randn_like.default, aten.bernoulli.p, law="none"
)
def random(w: Workspace, *args: Any, **kwargs: Any) -> None:
    """A random op must draw as many numbers as the model does."""
    raise Refusal("a random op draws different numbers for each row")


@rule(aten.topk.default, aten.sort.default, aten.max.dim, aten.min.dim, law="none")
def ordered(w: Workspace, *args: Any, **kwargs: Any) -> None:
    """An order among elements ties those of different ranks together."""
    raise Refusal("an order among elements of different ranks")
