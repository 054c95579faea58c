"""A saved ranker against the model that it was made of, and what came of it in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rankopt import saved
from rankopt.agreement import Agreement
from rankopt.artefacts.many_comparison import verify_many
from rankopt.atomic import write_whole
from rankopt.commands.progress import working
from rankopt.commands.sources import Source, read_model
from rankopt.errors import VerificationError
from rankopt.ranker import Ranker
from rankopt.report import words
from rankopt.verification import Verification
from rankopt.verify import CANDIDATES


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verification of a saved ranker."""

    verification: Verification
    dtype: str
    """Of the scores, as served."""
    state_dtype: torch.dtype | None = None
    """What the state is rounded to, if it is."""
    many: Agreement | None = None
    """Of many requests in one call, where that was asked for."""
    requests: int | None = None
    """How many of them in a call."""

    @property
    def identical(self) -> bool:
        """Whether all scores are the same within rounding."""
        return self.verification.identical and (self.many is None or self.many.identical())

    @property
    def sentence(self) -> str:
        """The result in one sentence, or in one per way to call the ranker."""
        candidates = self.verification.candidates
        found = in_words(self.verification.agreement, self.dtype, candidates, self.state_dtype)
        if self.many is None:
            return found
        numbers = tuple(dict.fromkeys(candidates))
        together = in_words(self.many, self.dtype, numbers, self.state_dtype)
        return f"{found}\n{self.requests:,} requests in one call: {together}"

    def check(self) -> None:
        """Raises VerificationError where scores differ."""
        self.verification.check()
        if self.many is not None and not self.many.identical():
            reasons = "\n  ".join(self.many.reasons())
            raise VerificationError(
                f"{self.requests:,} requests in one call do not have the scores of the original.\n  {reasons}\n"
                "  fix: call the ranker once per request, and report this"
            )

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        divergence = self.verification.divergence
        return {
            "identical": self.identical,
            "state_dtype": None if self.state_dtype is None else str(self.state_dtype).removeprefix("torch."),
            "candidates": list(self.verification.candidates),
            "reasons": list(self.verification.agreement.reasons()),
            "agreement": asdict(self.verification.agreement),
            "divergence": None if divergence is None else asdict(divergence),
            "many": None if self.many is None else {"requests": self.requests, "agreement": asdict(self.many)},
        }

    def save_reproduction(self, path: Path, overwrite: bool) -> None:
        """Writes the worst request; `torch.load(path, weights_only=True)` gives its tensors back."""
        request = self.verification.request
        tensors = {"context": dict(request.context), "target": dict(request.target)}
        write_whole(path, lambda file: torch.save(tensors, file), overwrite)


def verify(
    source: Source, ranker: Path, requests: int, candidates: Sequence[int], seed: int, many: int | None = None
) -> Comparison:
    """Compares a saved ranker with the model that it was made of; `many`: also this many requests in one call."""
    with working(f"reading {ranker}"):
        loaded = saved.load(ranker, source.trust)
    with working(f"reading {source.path}"):
        model, rows = read_model(source)
    with working("comparing"):
        verification = loaded.verify(requests, candidates or CANDIDATES, model, rows, seed)
        if many is None:
            return Comparison(verification, served_dtype(loaded), loaded.state_dtype)
        original, _ = loaded.original(model, rows)
        together = verify_many(loaded, original, many, candidates or CANDIDATES, seed)
    return Comparison(verification, served_dtype(loaded), loaded.state_dtype, together, many)


def in_words(
    agreement: Agreement, dtype: str, candidates: Sequence[int], state_dtype: torch.dtype | None = None
) -> str:
    """An agreement in one sentence. `state_dtype`: what the state is rounded to, so that the scores are not exact."""
    if state_dtype is not None:
        name, order = str(state_dtype).removeprefix("torch."), agreement.order
        errors = (agreement.rewritten_error, agreement.absolute_error)
        return words.rounding(name, *errors, order.top100, order.moved100, candidates)
    ratio = agreement.ratio if math.isfinite(agreement.ratio) else None
    return words.agreement(
        agreement.identical(), agreement.error64, dtype, ratio, agreement.order.swapped_pairs, candidates
    )


def served_dtype(ranker: Ranker) -> str:
    """The element type of the scores, for a sentence."""
    scores = ranker.stages.whole.graph.output_node().all_input_nodes
    dtypes = {str(score.meta["expr"].dtype).removeprefix("torch.") for score in scores}
    return dtypes.pop() if len(dtypes) == 1 else "as served"
