"""Prices of a backend: by its name, from a file, or measured on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rankopt.backends import PROFILES, profile_of
from rankopt.commands.progress import working
from rankopt.errors import FormatError
from rankopt.prices import Profile, from_json, to_json


def read_profile(backend: str, threads: int | None = None) -> Profile:
    """The prices of a backend by its name, or of a file by `rankopt calibrate`; with `threads`, for as many."""
    if backend in PROFILES or not Path(backend).exists():
        return profile_of(backend, threads)
    try:
        data = json.loads(Path(backend).read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{backend} is no JSON: {error}.\n  fix: write it with `rankopt calibrate`") from error
    return profile_of(from_json(data), threads)


def calibrate(backend: str) -> dict[str, Any]:
    """The prices of a backend on this machine, as plain data."""
    from rankopt import calibration

    with working(f"measuring {backend}"):
        measured: dict[str, Any] = to_json(calibration.calibrate(backend))
    return measured
