"""Ops that are known not to be improvable, each with the reason that reports show.

They are computed as the model wrote them. Listing them here gives a better answer than "no rule".
"""

from __future__ import annotations

from typing import Any

from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.workspace import Workspace


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
