"""The result of a verification: how well a ranker agrees with its original, and where it stops agreeing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from rankopt.agreement import Agreement
from rankopt.errors import VerificationError
from rankopt.requests import Request


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first node of the model whose value the rewritten program gets wrong."""

    node: str
    line: str
    error: float


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a ranker: how well it agrees, and on which request it did worst."""

    agreement: Agreement
    candidates: tuple[int, ...]
    divergence: Divergence | None
    request: Request
    """The request that disagrees, or the one that is furthest from the truth."""

    @property
    def identical(self) -> bool:
        """Whether the scores are the same within rounding."""
        return self.agreement.identical()

    def check(self) -> Verification:
        """Returns itself. Raises VerificationError, naming the first diverging node, where the scores differ."""
        if self.identical:
            return self
        found = "\n  ".join(self.agreement.reasons())
        where = ""
        if self.divergence is not None:
            where = f"\n  first diverging node: {self.divergence.node} ({self.divergence.error:.1e})"
            where += f"\n    {self.divergence.line}" if self.divergence.line else ""
        raise VerificationError(
            f"the rewritten ranker does not give the scores of the original.\n  {found}{where}\n"
            "  fix: keep the original, and report this with verification.save_reproduction('request.pt')"
        )

    def save_reproduction(self, path: str | os.PathLike[str]) -> None:
        """Writes the request that disagrees: `torch.load(path, weights_only=True)` gives its tensors back."""
        target = Path(path)
        if target.exists():
            raise FileExistsError(f"{target} exists")
        torch.save({"context": dict(self.request.context), "target": dict(self.request.target)}, target)
