"""A model, rewritten: saved as a ranker, exported, or only reported on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rankopt import pipeline
from rankopt.artefacts import writing
from rankopt.artefacts.writing import Order
from rankopt.backends import DEFAULT
from rankopt.commands.comparing import served_dtype
from rankopt.commands.exports import Exported
from rankopt.commands.progress import working
from rankopt.commands.sources import Source, read_model
from rankopt.errors import RolesError
from rankopt.interface import Range
from rankopt.passes import NAMES
from rankopt.prices import Profile
from rankopt.ranker import Ranker
from rankopt.report.tree import Report


@dataclass(frozen=True, slots=True)
class Request:
    """What to make of it: see `rankopt.optimize`."""

    context: Sequence[str]
    target: Sequence[str] | None = None
    candidates: int | tuple[int, int] = 512
    backend: Profile = DEFAULT
    passes: Collection[str] | None = None
    state_dtype: torch.dtype | None = None


@dataclass(frozen=True, slots=True)
class Optimized:
    """A ranker that was written, and what was exported of it where that is something else."""

    ranker: Ranker
    exported: Exported | None


def optimize(source: Source, request: Request, order: Order, verification: bool, overwrite: bool) -> Optimized:
    """Reads a model, rewrites it, and writes the ranker, or what is exported of it."""
    order.check(overwrite)
    with working(f"reading {source.path}"):
        model, rows = read_model(source)
    with working(f"rewriting for {_count(request.candidates)}"):
        ranker = pipeline.optimize(
            model,
            verification=verification,
            example_inputs=rows,
            state_dtype=request.state_dtype,
            **_arguments(request),
        )
    with working(f"writing {order.path}"):
        if not order.is_ranker:
            single = ranker.at(ranker.interface.candidates)
            return Optimized(ranker, Exported(writing.export(single, order, overwrite), served_dtype(single)))
        ranker.save(order.path, overwrite)
    return Optimized(ranker, None)


def explain(source: Source, request: Request) -> Report:
    """The report on a model, without a ranker."""
    with working(f"reading {source.path}"):
        model, rows = read_model(source)
    with working(f"looking at it with {_count(request.candidates)}"):
        report: Report = pipeline.explain(model, example_inputs=rows, **_arguments(request))
    return report


def _count(candidates: int | tuple[int, int]) -> str:
    spans = (candidates, candidates) if isinstance(candidates, int) else candidates
    return f"{Range(*spans)} candidates"


def _arguments(request: Request) -> dict[str, Any]:
    return {
        "context": list(request.context),
        "target": None if request.target is None else list(request.target),
        "candidates": request.candidates,
        "backend": request.backend,
        "passes": request.passes,
    }


def passes_used(only: Sequence[str], without: Sequence[str]) -> Collection[str] | None:
    """The passes that the options leave; None for all. Raises RolesError for one that does not exist."""
    unknown = [name for name in (*only, *without) if name not in NAMES]
    if unknown:
        raise RolesError(f"there is no pass '{unknown[0]}'.\n  expected: {', '.join(NAMES)}\n  fix: name one of them")
    if not only and not without:
        return None
    return [name for name in (only or NAMES) if name not in without]
