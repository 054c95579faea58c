"""What changed: work by the modules of the user's model, before and after rewriting, or in two versions of a ranker.

changes(report)           the model and what it was rewritten to
changes(old, new)         what was served, and what is served now
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankopt.cost import Flops
from rankopt.errors import FormatError
from rankopt.report import encoding, words
from rankopt.report.tree import Report

REST = "(the rest)"
"""Name of the row of nodes that belong to no module but the model itself."""

_NONE = Flops()


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """FLOPs per request of one module, those inside of it left out: for every report, of the model and as served."""

    name: str
    flops: tuple[tuple[float, float], ...]

    @property
    def ends(self) -> tuple[float, float]:
        """What is compared: the model with what is served; of two reports, what each serves."""
        return self.flops[0] if len(self.flops) == 1 else (self.flops[0][1], self.flops[1][1])

    @property
    def saved(self) -> float:
        """FLOPs per request that the change saves."""
        return self.ends[0] - self.ends[1]


@dataclass(frozen=True, slots=True)
class Changes:
    """FLOPs by module in one report or two, all at the same number of candidates. What saves most comes first."""

    titles: tuple[str, ...]
    candidates: int
    elementwise: bool
    """Whether FLOPs include elementwise work, which is most of it."""
    times: tuple[tuple[float, float], ...]
    """Estimated nanoseconds, for every report of the model and as served, at the report's own number of candidates."""
    modules: tuple[ModuleChange, ...]

    @property
    def total(self) -> ModuleChange:
        """All modules together."""
        sides = zip(*(change.flops for change in self.modules), strict=True)
        return ModuleChange("all", tuple((sum(a for a, _ in side), sum(b for _, b in side)) for side in sides))

    @property
    def sentence(self) -> str:
        """The change in one sentence."""
        old, new = self.total.ends
        what = "served" if len(self.titles) > 1 else "model -> served"
        note = ", elementwise work included" if self.elementwise else ""
        change = words.change(old, new) or "0%"
        return f"{what}: {words.arrow(old, new)} per request at {self.candidates:,} candidates ({change}{note})."

    def to_json(self) -> dict[str, Any]:
        """As dicts, lists, strings and numbers."""
        return encoding.encode(self)


def changes(reports: Sequence[Report], titles: Sequence[str]) -> Changes:
    """The changes within one report, or from the first to the second of two: at the last one's number of candidates.

    Raises FormatError for a report that does not say what is left of each node's work.
    """
    for report, title in zip(reports, titles, strict=True):
        _check(report, title)
    candidates = reports[-1].candidates
    elementwise = all(words.mostly_elementwise(report.before.flops, candidates) for report in reports)

    def flops(report: Report, name: str) -> tuple[float, float]:
        own = [node for node in report.nodes if node.module == name]
        sides = (sum((node.before for node in own), _NONE), sum((node.share for node in own), _NONE))
        old, new = (words.joined(side) if elementwise else side for side in sides)
        return old.at(candidates), new.at(candidates)

    names = dict.fromkeys(node.module for report in reports for node in report.nodes)
    found = [ModuleChange(name or REST, tuple(flops(report, name) for report in reports)) for name in names]
    return Changes(
        titles=tuple(titles),
        candidates=candidates,
        elementwise=elementwise,
        times=tuple((report.before.time, report.after.time) for report in reports),
        modules=tuple(sorted((m for m in found if any(map(any, m.flops))), key=lambda m: -m.saved)),
    )


def _check(report: Report, title: str) -> None:
    if report.after.flops != _NONE and all(node.share == _NONE for node in report.nodes):
        raise FormatError(
            f"the report of {title} does not say what is left of each module's work: an older rankopt wrote it.\n"
            "  fix: optimize or explain the model again"
        )
