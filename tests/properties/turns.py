"""How the program of a seed is checked: everything that is expensive takes turns."""

from __future__ import annotations

from dataclasses import dataclass

from properties.checking import assert_same
from properties.many import assert_same_as_single_calls
from properties.recorder import Recorded

from rankopt.plan import FULL, POLICIES, UNSHARED, other_forms
from rankopt.workspace import Policy

EVERY_POLICY = (*POLICIES, UNSHARED, *other_forms(FULL))
SHARING = tuple(policy for policy in EVERY_POLICY if policy.share)
CANDIDATES = (64, 2, 2000)


@dataclass(frozen=True, slots=True)
class Turn:
    """Under which policy, with the decisions for how many candidates, in stages or at once, for many requests too."""

    policy: Policy
    candidates: int
    staged: bool
    many: bool

    @staticmethod
    def of(seed: int) -> Turn:
        """Policies take turns, and after each round of them candidates; each fourth is staged, each tenth for many."""
        rounds, policy = divmod(seed, len(EVERY_POLICY))
        return Turn(
            EVERY_POLICY[policy],
            CANDIDATES[rounds % len(CANDIDATES)],
            staged=(rounds + policy) % 4 == 0,
            many=(rounds + policy) % 10 == 5,
        )


def check_in_turn(program: Recorded, seed: int) -> None:
    """Raises Mismatch where the turn of a seed finds other numbers."""
    turn = Turn.of(seed)
    assert_same(program, [turn.policy], turn.candidates, staged=turn.staged)
    if turn.many and turn.policy.share:
        assert_same_as_single_calls(program, turn.policy, turn.candidates)
