"""A saved ranker, written anew: in another format, or with the weights of another checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rankopt import refreshing, saved
from rankopt.artefacts import writing
from rankopt.artefacts.writing import Export, Order
from rankopt.commands.comparing import Comparison, in_words, served_dtype
from rankopt.commands.progress import working
from rankopt.commands.sources import Source, read_model, read_rows


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written for a serving stack."""

    export: Export
    dtype: str
    """Of the scores, as served."""

    @property
    def sentence(self) -> str:
        """How its runtime agrees with the original, in one sentence."""
        done = self.export
        found = in_words(done.agreement, self.dtype, done.candidates, done.state_dtype)
        counts = ", ".join(f"{count:,}" for count in done.requests)
        return f"{done.runtime}: {found}{f', in calls of {counts} requests' if counts else ''}"


def export(
    ranker: Path,
    order: Order,
    example: Path | None,
    trust: bool,
    overwrite: bool,
    candidates: int | None = None,
    state_dtype: torch.dtype | None = None,
) -> Exported:
    """Writes a saved ranker in another format: of several plans, that for a number of candidates."""
    order.check(overwrite)
    with working(f"reading {ranker}"):
        loaded = saved.load(ranker, trust)
    loaded = loaded.at(loaded.interface.candidates if candidates is None else candidates)
    loaded = loaded if state_dtype is None else loaded.with_state_dtype(state_dtype)
    rows = None if example is None else read_rows(example)
    with working(f"writing {order.path}"):
        return Exported(writing.export(loaded, order, overwrite, rows), served_dtype(loaded))


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A ranker with new weights, written."""

    comparison: Comparison | None
    """With the retrained model, where that was at hand."""
    exported: Exported
    unread: Sequence[str]
    """Names in the checkpoint that the ranker does not read, where no model was there to tell whether they are its."""


def refresh(
    ranker: Path,
    checkpoint: Path,
    original: Source | None,
    order: Order,
    example: Path | None,
    trust: bool,
    force: bool,
) -> Refreshed:
    """Puts new weights into a saved ranker and writes it: see `rankopt.refreshing`."""
    order.check(force)
    with working(f"reading {ranker}"):
        loaded = saved.load(ranker, trust)
    with working(f"reading {checkpoint}"):
        weights, model = refreshing.read_checkpoint(checkpoint, trust)
    unread = refreshing.put(loaded, weights)
    rows = None if example is None else read_rows(example)
    if original is not None:
        model, rows = read_model(original)
        refreshing.put_weights(model, weights)
    comparison = None
    with working("comparing"):
        if model is None:
            refreshing.require_precision(loaded, rows)
        else:
            verification = loaded.verify(model=model, example_inputs=rows).check()
            comparison = Comparison(verification, served_dtype(loaded), loaded.state_dtype)
    with working(f"writing {order.path}"):
        written = loaded if order.is_ranker else loaded.at(loaded.interface.candidates)
        done = Exported(writing.export(written, order, force, rows), served_dtype(written))
    return Refreshed(comparison, done, unread if model is None else ())
