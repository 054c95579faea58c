"""What can be written, and under which names: the ending of a file says what it is.

fast.pt2          a saved ranker, which torch.export.load reads too
fast.onnx         an ONNX model
fast.aoti.pt2     an AOTInductor package
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from rankopt.errors import OutputError


class Format(Enum):
    """A kind of file, by its ending."""

    PROGRAM = ".pt2"
    ONNX = ".onnx"
    PACKAGE = ".aoti.pt2"


class Signature(Enum):
    """How the file is called: with a request in two parts, or as the original model, on rows that repeat it."""

    REQUEST = "request"
    ROWS = "rows"


class Batching(Enum):
    """How the candidates of many requests come in one call."""

    DENSE = "dense"
    """[B, N, ...]: as many for each request."""
    LENGTHS = "lengths"
    """[R, ...], request after request, and how many each has: lengths [B]."""
    REQUEST_OF = "request_of"
    """[R, ...] in any order, and of which request each is: request_of [R]."""


CONTEXT, CANDIDATE = "context", "candidate"
"""The two stages, as they stand in the names of their files."""


def format_of(path: Path) -> Format:
    """What the ending asks for. Raises OutputError where no format has it."""
    for known in (Format.PACKAGE, Format.ONNX, Format.PROGRAM):
        if path.name.lower().endswith(known.value) and len(path.name) > len(known.value):
            return known
    endings = ", ".join(known.value for known in Format)
    raise OutputError(
        f"cannot write {path}: no format has this ending.\n"
        f"  expected: NAME and one of {endings}\n  fix: rename it to what shall be written"
    )


def default_backend(path: Path) -> str:
    """Whose prices a file is optimised for unless told otherwise: those of what will run it."""
    return {Format.ONNX: "onnxruntime", Format.PACKAGE: "inductor", Format.PROGRAM: "eager"}[format_of(path)]


def stage_path(path: Path, stage: str) -> Path:
    """The file of one stage: `fast.onnx` -> `fast.context.onnx`."""
    ending = format_of(path).value
    return path.with_name(f"{path.name[: -len(ending)]}.{stage}{path.name[-len(ending) :]}")


def description_path(path: Path) -> Path:
    """The file that describes both stages and the state: `fast.onnx` -> `fast.stages.json`."""
    return path.with_name(f"{path.name[: -len(format_of(path).value)]}.stages.json")


def files_of(path: Path, stages: bool) -> tuple[Path, ...]:
    """The files that will be there, external data apart. Raises OutputError for an ending that no format has."""
    format_of(path)
    return (stage_path(path, CONTEXT), stage_path(path, CANDIDATE), description_path(path)) if stages else (path,)


def plain_names(paths: Iterable[tuple[str, str]]) -> list[str]:
    """Names for inputs, given as (path, role): identifiers, which every runtime and language can spell.

    Whatever is no letter, digit or underscore becomes an underscore: `features.user_id` -> `features_user_id`. The two
    parts of a packed input are told apart by their role: `x_context`, `x_target`. What still collides is numbered.
    """
    pairs = list(paths)
    packed = {path for path, _ in pairs if sum(path == other for other, _ in pairs) > 1}
    names: list[str] = []
    for path, role in pairs:
        name = re.sub(r"\W", "_", f"{path}_{role}" if path in packed else path, flags=re.ASCII) or "input"
        base = name = f"_{name}" if name[0].isdigit() else name
        count = 1
        while name in names:
            count += 1
            name = f"{base}_{count}"
        names.append(name)
    return names
