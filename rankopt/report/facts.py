"""The facts of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankopt.capture import CapturedModel
from rankopt.plan import Plan
from rankopt.selectors import InputRole
from rankopt.stages import Stages

if TYPE_CHECKING:
    from rankopt.verify import Verification


@dataclass(frozen=True, slots=True)
class Report:
    """What was saved, what was not, and why."""


def build_report(
    captured: CapturedModel,
    roles: Sequence[InputRole],
    plan: Plan,
    plans: Sequence[Plan],
    unshared: Plan,
    stages: Stages,
    verification: Verification | None,
) -> Report:
    """The facts about `plan`, the one chosen of `plans`."""
    return Report()
