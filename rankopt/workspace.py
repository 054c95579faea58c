"""What every law needs at hand: the program being written, fresh axes, and the policy in force."""

from __future__ import annotations

from dataclasses import dataclass, field

from rankopt.axes import AxisFactory
from rankopt.backends import DEFAULT
from rankopt.layout import Layouts
from rankopt.prices import Profile
from rankopt.program import Program


@dataclass(frozen=True, slots=True)
class Policy:
    """How far to defer. Several policies are interpreted and the cheapest program is kept.

    defer: keep sums and products pending, so that later laws can split them; otherwise each op is evaluated at once
        and only the split between context and target parts of a concatenation remains.
    compose: contract pending products in any order, so that weights may meet context values before target values do
        ("folds"); otherwise products are contracted in the order in which the model wrote them.
    share_values: evaluate every value that several ops read, so that nothing is computed twice; otherwise only where
        one of its readers is nonlinear, and the others may fold it into something cheaper.
    """

    name: str
    defer: bool = True
    compose: bool = True
    share_values: bool = False
    reluctance: float = 1.0
    """How many times dearer than it is evaluating a value is taken to be: what one reader has evaluated stays pending
    for no other, and a later one may have had a better use for it."""
    operands: int = 5
    """Operands in one pending product. Beyond them rank-2 factors are multiplied, or else the product is evaluated: how
    a chain of products is cut decides which folds are still to be had, and neither more nor fewer is always better."""
    through_norms: bool = False
    """Keep what a layer norm takes pending, beside its values, which the moments need: a linear layer behind the norm
    may fold it into something cheaper."""
    coalesce: bool = True
    """Join parts of the same rank into one tensor after each elementwise op; otherwise they stay apart as long as they
    can, which saves copies and costs more, smaller calls."""
    outermost: bool = False
    """Stack what differs between candidates along a first dim, before the rows, instead of next to them: reductions and
    broadcasts then run over long stretches, and heads of an attention need no copies."""
    share: bool = True
    """Treat context inputs as rank-2; without it only plain rewriting remains (a baseline for the report)."""
    once: bool = False
    """Run what reads context alone once per request, and everything else on tiled rows as the model wrote it."""
    unchanged: bool = False
    """Run the original ops on tiled rows."""

    @property
    def rewrites(self) -> bool:
        """Whether laws are applied to values that differ between candidates."""
        return not (self.once or self.unchanged)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep pending values small; beyond them a value is evaluated."""

    terms: int = 8
    """Terms in one pending sum."""
    parts: int = 12
    """Parts of one concatenation."""


@dataclass(slots=True)
class Workspace:
    """State of one interpretation. `candidates` is the number of candidates that costs are computed for."""

    candidates: int
    policy: Policy
    program: Program = field(default_factory=Program)
    axes: AxisFactory = field(default_factory=AxisFactory)
    profile: Profile = DEFAULT
    limits: Limits = Limits()
    layouts: Layouts = field(default_factory=Layouts)
