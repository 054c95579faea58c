"""What the options say, as the values that `rankopt.commands` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankopt.atomic import require_writable

if TYPE_CHECKING:
    import torch

    from rankopt.artefacts.writing import Order
    from rankopt.commands.rewriting import Request


def read_request(
    context: Sequence[str],
    target: Sequence[str],
    candidates: int | tuple[int, int],
    backend: str,
    threads: int | None,
    only: Sequence[str],
    without: Sequence[str],
    state_dtype: str | None = None,
) -> Request:
    """The options about roles, prices and passes. Raises RolesError for a pass that does not exist."""
    from rankopt.commands.pricing import read_profile
    from rankopt.commands.rewriting import Request, passes_used

    selected = split_selectors(target) or None
    passes = passes_used(split_selectors(only), split_selectors(without))
    profile = read_profile(backend, threads)
    return Request(split_selectors(context), selected, candidates, profile, passes, read_dtype(state_dtype))


def read_order(output: Path, stages: bool, signature: str, many: str | None) -> Order:
    """The options about what is written."""
    from rankopt.artefacts.writing import Order, batching_of, signature_of

    return Order(output, stages, signature_of(signature), many=batching_of(many))


def read_dtype(name: str | None) -> torch.dtype | None:
    """An element type by its name."""
    import torch

    return None if name is None else getattr(torch, name)


def split_selectors(values: Sequence[str]) -> list[str]:
    """Values that may hold several, separated by commas; a comma in brackets separates columns."""
    parts: list[str] = []
    for value in values:
        parts.append("")
        depth = 0
        for char in value:
            depth += (char == "[") - (char == "]")
            if char == "," and not depth:
                parts.append("")
            else:
                parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def check_outputs(force: bool, *paths: Path | None) -> None:
    """Finds out before the work what could not be written after it."""
    for path in paths:
        if path is not None and str(path) != "-":
            require_writable(path, force)
