"""Plans by the number of candidates: a fold pays only above its break-even.

A program is a closed form of the number N of candidates, so a plan that was written for one N has a price at every
other. Over a range, the plans for a few N are compared, and the fewest are kept with which no N is estimated to take
more than `TOLERANCE` longer than with the best of all: every plan that is kept makes the artefact larger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rankopt import timing
from rankopt.backends import DEFAULT
from rankopt.capture import CapturedModel
from rankopt.errors import InputError
from rankopt.expressions import Expr
from rankopt.plan import POLICIES, Plan, alternatives
from rankopt.prices import Profile
from rankopt.program import Program
from rankopt.selectors import InputRole

TOLERANCE = 0.05
"""How much longer than with the best plan a request may take, for fewer plans."""

APART = 16
"""Factor between the numbers of candidates for which plans are written."""

FEW = 12
"""Up to here, time is dispatch, of which an estimate is least sure."""

CAUTION = 1.1
"""How many times cheaper than the model unchanged a rewritten program must seem to be chosen for so few candidates."""

Price = Callable[[int, int], float]
"""Estimated nanoseconds of a plan, by its place, at a number of candidates."""

MOST = 1_000_000
"""A break-even beyond this number of candidates is none."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A plan, and the numbers of candidates that it serves."""

    first: int
    last: int
    plan: Plan


def range_of(candidates: int | tuple[int, int]) -> tuple[int, int]:
    """The smallest and the largest number. Raises InputError where they are none."""
    if isinstance(candidates, int) and candidates >= 1:
        return candidates, candidates
    if isinstance(candidates, tuple) and len(candidates) == 2:
        first, last = candidates
        if isinstance(first, int) and isinstance(last, int) and 1 <= first <= last:
            return first, last
    raise InputError(
        f"candidates={candidates!r} is no number of candidates.\n"
        "  expected: an int, or a range (smallest, largest), from 1 on\n"
        "  fix: candidates=512, or candidates=(1, 2000)"
    )


class Curves:
    """Estimated times of plans at any number of candidates. A call that several plans make is priced once."""

    def __init__(self, plans: Sequence[Plan], profile: Profile) -> None:
        program = Program()
        adopted = [program.adopt(plan.exprs, plan.workspace.program.constants) for plan in plans]
        self._exprs = [list({expr.serial: expr for expr in own.values()}.values()) for own in adopted]
        self._outputs = [
            tuple(own[expr.serial].serial for expr in plan.outputs) for plan, own in zip(plans, adopted, strict=True)
        ]
        self._inside = [timing.fused(exprs, profile) for exprs in self._exprs]
        self._entries = [timing.entry_time(exprs, profile) for exprs in self._exprs]
        self._profile = profile
        self._calls: dict[tuple[int, int, bool], float] = {}
        self._times: dict[tuple[int, int], float] = {}

    def same(self, i: int, j: int) -> bool:
        """Whether two plans are the same program."""
        return self._outputs[i] == self._outputs[j]

    def time(self, i: int, candidates: int) -> float:
        """Estimated nanoseconds of plan `i`."""
        if (i, candidates) not in self._times:
            inside = self._inside[i]
            calls = sum(self._call(e, candidates, e.serial in inside) for e in self._exprs[i])
            self._times[i, candidates] = self._entries[i] + calls
        return self._times[i, candidates]

    def _call(self, expr: Expr, candidates: int, inside: bool) -> float:
        key = (expr.serial, candidates, inside)
        if key not in self._calls:
            self._calls[key] = timing.time(expr, candidates, self._profile, inside=inside)
        return self._calls[key]


def plans_for(
    captured: CapturedModel,
    roles: Sequence[InputRole],
    first: int,
    last: int,
    passes: Collection[str] | None = None,
    profile: Profile = DEFAULT,
) -> list[Plan]:
    """Plans for the numbers of a range, each program once, priced at the largest; there, the cheapest first.

    They are refined for the largest number alone: what gains there mostly gains below.
    """
    plans = alternatives(captured, roles, last, passes, profile)
    if first == last:
        return plans
    rewriting = [policy for policy in POLICIES if policy.rewrites]
    number = last // APART
    while number > first:
        plans.extend(
            replace(plan, policy=replace(plan.policy, name=f"{plan.policy.name}, for {number:,}"))
            for plan in alternatives(captured, roles, number, passes, profile, rewriting, refined=0)
        )
        number //= APART
    curves = Curves(plans, profile)
    distinct: list[int] = []
    for i in range(len(plans)):
        if not any(curves.same(i, j) for j in distinct):
            distinct.append(i)
    found = [replace(plans[i], candidates=last, time=curves.time(i, last)) for i in distinct]
    return sorted(found, key=lambda plan: plan.time * doubt(plan, last))


def doubt(plan: Plan, candidates: int) -> float:
    """How many times cheaper than the unchanged one a plan must seem to be preferred to it."""
    if not plan.policy.rewrites:
        return 1.0
    return max(plan.workspace.profile.doubt, CAUTION if candidates <= FEW else 1.0)


def envelope(plans: Sequence[Plan], first: int, last: int) -> list[Piece]:
    """The fewest of `plans`, in ascending order of the numbers of candidates that they serve.

    For a single number it is the first of them. Ranges end where the next plan becomes cheaper.
    """
    if first == last:
        return [Piece(first, last, plans[0])]
    curves = Curves(plans, plans[0].workspace.profile)

    def price(i: int, candidates: int) -> float:
        return curves.time(i, candidates) * doubt(plans[i], candidates)

    runs = _cover(len(plans), price, _grid(first, last))
    pieces: list[Piece] = []
    end = last
    for (plan, winning), (below, losing) in pairwise(runs):
        start = _crossover(price, (plan, below), losing[0], winning)
        pieces.append(Piece(start, end, plans[plan]))
        end = start - 1
    return [Piece(first, end, plans[runs[-1][0]]), *reversed(pieces)]


def break_even(plan: Plan, other: Plan) -> int | None:
    """The smallest number of candidates from which on `plan` is estimated to be faster; None if there is none.

    It is looked for upwards from the numbers at which `plan` is slower: 1 where it never is.
    """
    curves = Curves([plan, other], plan.workspace.profile)
    numbers = _grid(1, MOST, 4.0)
    wins = [curves.time(0, n) < curves.time(1, n) for n in numbers]
    if not wins[-1]:
        return None
    losing = max((i for i, won in enumerate(wins) if not won), default=None)
    if losing is None:
        return 1
    return _crossover(curves.time, (0, 1), numbers[losing], numbers[:losing:-1])


def _grid(first: int, last: int, factor: float = 1.5) -> list[int]:
    """Numbers from the first to the last, every one `factor` times the one before."""
    numbers = [first]
    while numbers[-1] < last:
        numbers.append(min(max(numbers[-1] + 1, int(numbers[-1] * factor)), last))
    return numbers


def _cover(plans: int, price: Price, numbers: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Plans that are good enough for stretches of `numbers`, from the largest down: each with its numbers, descending.

    Each time the plan that is good enough furthest down; of several, the best on the way.
    """
    left = list(reversed(numbers))
    best = {n: min(price(i, n) for i in range(plans)) for n in left}
    runs: list[tuple[int, list[int]]] = []
    while left:
        lengths = [_good_enough(price, i, left, best) for i in range(plans)]
        longest = max(lengths)
        stretch, left = left[:longest], left[longest:]
        losses = {i: sum(price(i, n) / best[n] for n in stretch) for i in range(plans) if lengths[i] == longest}
        runs.append((min(losses, key=losses.__getitem__), stretch))
    return runs


def _good_enough(price: Price, plan: int, numbers: Sequence[int], best: Mapping[int, float]) -> int:
    """For how many of the numbers, from the first on, a plan is good enough."""
    failing = (i for i, n in enumerate(numbers) if price(plan, n) > (1 + TOLERANCE) * best[n])
    return next(failing, len(numbers))


def _crossover(price: Price, plans: tuple[int, int], losing: int, winning: Sequence[int]) -> int:
    """The number, to 2%, from which on the first of two plans is cheaper.

    It is not yet at `losing`; it is somewhere among the numbers of `winning`, which descend to the next above.
    """
    plan, other = plans
    high = winning[-1]
    for n in reversed(winning):
        if price(plan, n) < price(other, n):
            high = n
            break
        losing = n
    while high - losing > max(1, losing // 50):
        middle = (losing + high) // 2
        losing, high = (losing, middle) if price(plan, middle) < price(other, middle) else (middle, high)
    return high
