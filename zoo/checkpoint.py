"""How far training has come, in a file that a later run goes on from."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from rankopt.zoo.errors import ZooError
from rankopt.zoo.files import write_whole


class Phase(Enum):
    SEARCH = "search"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Metrics:
    auc: float
    log_loss: float


@dataclass(slots=True)
class Progress:
    """All that a checkpoint holds; `best` are the weights after the best epoch, kept where they are the result."""

    phase: Phase = Phase.SEARCH
    validation: list[Metrics] = field(default_factory=list)
    learner: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file that training goes on from; without a path nothing is written."""

    path: Path | None
    identity: dict[str, Any]

    def load(self) -> Progress:
        """The progress in the file, or a fresh start where there is none.

        Raises:
            ZooError: the file belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return Progress()
        saved = torch.load(self.path, weights_only=True)
        differing = [key for key, value in self.identity.items() if saved["identity"].get(key) != value]
        if differing:
            found = {key: saved["identity"].get(key) for key in differing}
            expected = {key: self.identity[key] for key in differing}
            raise ZooError(
                f"checkpoint {self.path} belongs to another run: expected {expected}, found {found}.\n"
                "  fix: another checkpoint file, or the options of that run"
            )
        validation = [Metrics(**metrics) for metrics in saved["validation"]]
        return Progress(Phase(saved["phase"]), validation, saved["learner"], saved["best"], saved["seconds"])

    def save(self, progress: Progress) -> None:
        if self.path is None:
            return
        content = {
            "identity": self.identity,
            "phase": progress.phase.value,
            "validation": [asdict(metrics) for metrics in progress.validation],
            "learner": progress.learner,
            "best": progress.best,
            "seconds": progress.seconds,
        }
        write_whole(self.path, lambda file: torch.save(content, file))
