"""Archives: what a file is, and the torch.export program in it."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2

from rankopt.errors import FormatError
from rankopt.exporting import tracing_conditions
from rankopt.untrusted import refuse_code


class Kind(Enum):
    """What a file is, by its content."""

    PROGRAM = "a torch.export program"
    RANKER = "an optimised ranker"
    PICKLE = "a pickled object (torch.save)"
    TORCHSCRIPT = "a TorchScript module"
    OLD_PROGRAM = "a torch.export program in the format of torch 2.7"


DESCRIPTION = "rankopt.json"
"""The extra file that makes a program a saved ranker."""

EXPORTED = "rankopt_export.json"
"""The extra file about inputs and weights of an exported program. Not that of a saved ranker: its weights are baked."""

COMPILED = "data/aotinductor/"
"""Where an archive has a compiled library."""

_FIX = '  fix: torch.export.save(program, "model.pt2"), or ranker.save("ranker.pt2")'


def kind_of(path: Path) -> Kind:
    """What the file is. Raises FormatError where it is missing, truncated, or nothing that can be read."""
    with _opened(path) as archive:
        if archive is None:
            return Kind.PICKLE
        names = {inside(name) for name in archive.namelist()}
    if f"extra/{DESCRIPTION}" in names:
        return Kind.RANKER
    if "archive_format" in names:
        return Kind.PROGRAM
    if "constants.pkl" in names:
        return Kind.TORCHSCRIPT
    if "data.pkl" in names:
        return Kind.PICKLE
    if "serialized_exported_program.json" in names | {Path(name).name for name in names}:
        return Kind.OLD_PROGRAM
    raise FormatError(f"{path} is an archive, but not of a model.\n{_FIX}")


def refuse_exported(path: Path) -> None:
    """Raises FormatError for what `rankopt export` wrote: it has no weights of the model's, only prepared ones."""
    if not _is_exported(path):
        return
    raise FormatError(
        f"{path} was made by `rankopt export`: it holds prepared weights, not those of the model.\n"
        "  expected: a saved ranker, or a checkpoint of the model\n"
        "  fix: rankopt refresh RANKER.pt2 CHECKPOINT -o NAME writes the saved ranker with new weights, in any format"
    )


def _is_exported(path: Path) -> bool:
    if path.suffix.lower() == ".onnx":
        return _says_rankopt(path)
    with contextlib.suppress(FormatError, zipfile.BadZipFile), _opened(path) as archive:
        if archive is None:
            return False
        members = {inside(name): name for name in archive.namelist()}
        notes = [members[name] for name in members if name.startswith(COMPILED) and name.endswith("metadata.json")]
        return f"extra/{EXPORTED}" in members or any(b"rankopt.program" in archive.read(name) for name in notes)
    return False


def _says_rankopt(path: Path) -> bool:
    """Whether an ONNX model has rankopt's facts in its metadata."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # damaged, or missing: whoever reads it says so
        return False
    return any(item.key == "rankopt.program" for item in model.metadata_props)


def plan_file(place: int) -> str:
    """The extra file that holds one more plan of a saved ranker: a program over its tensors, as text."""
    return f"rankopt_plan_{place}.b64"


def read_plans(path: Path, count: int, trust: bool = False) -> list[ExportedProgram]:
    """The further plans of a saved ranker. Raises FormatError like `read_program`."""
    with _opened(path) as archive:
        assert archive is not None  # a ranker is an archive
        members = {inside(name): name for name in archive.namelist()}
        try:
            contents = [b64decode(archive.read(members[f"extra/{plan_file(i)}"]), validate=True) for i in range(count)]
            return [_read_plan(content, path, trust) for content in contents]
        except FormatError:
            raise
        except Exception as error:  # whatever zipfile, base64 and torch raise
            raise FormatError(
                f"{path}: a plan in it is damaged: {_first_line(error)}\n  fix: optimize the model again"
            ) from error


def _read_plan(content: bytes, path: Path, trust: bool) -> ExportedProgram:
    if not trust:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            refuse_code(archive, path)
    with tracing_conditions():
        return load_pt2(io.BytesIO(content)).exported_programs["model"]


def read_program(path: Path, trust: bool = False) -> ExportedProgram:
    """The program in a .pt2 file; nothing in it is run.

    With `trust`, also what needs unpickling is read. Raises FormatError where the file is of another kind, is
    damaged, or would have to be trusted.
    """
    kind = kind_of(path)
    if kind not in (Kind.PROGRAM, Kind.RANKER):
        raise FormatError(f"{path} is {kind.value}, expected {Kind.PROGRAM.value}.\n{_FIX}")
    if not trust:
        with _opened(path) as archive:
            assert archive is not None  # a program is an archive
            refuse_code(archive, path)
    try:
        with tracing_conditions():  # torch.export.load would hide the cause, and try formats of long ago
            return load_pt2(str(path)).exported_programs["model"]
    except Exception as error:  # torch raises whatever its layers raise
        raise FormatError(
            f"{path} cannot be read: {_first_line(error)}\n"
            f"  it was written by torch {_torch_version(path)}, this is torch {torch.__version__}\n"
            "  fix: save the model again; if the versions differ, with this one"
        ) from error


def read_description(path: Path) -> dict[str, Any]:
    """The description beside a saved ranker's graph.

    Raises FormatError where there is none or it is damaged.
    """
    refuse_exported(path)
    if kind_of(path) is not Kind.RANKER:
        raise FormatError(
            f"{path} is {kind_of(path).value}, not an optimised ranker.\n"
            f"  fix: rankopt optimize {path} --context SELECTOR -o OUT.pt2"
        )
    with _opened(path) as archive:
        assert archive is not None  # a ranker is an archive
        data = _description(archive)
    if not isinstance(data, dict):
        raise FormatError(f"{path}: {DESCRIPTION} is damaged.\n  fix: optimize the model again")
    return data


def inside(name: str) -> str:
    """The name of a member without the archive's own folder, which every file names as it likes."""
    return name.partition("/")[2]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile | None]:
    """The archive for reading; None for a bare pickle, as torch.save wrote before 1.6."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.\n  fix: check the path") from error
    except zipfile.BadZipFile:
        if start[:1] == b"\x80":
            yield None
            return
        what = "is truncated" if start == b"PK" else "is not a model: neither an archive nor a pickle"
        raise FormatError(f"{path} {what}.\n{_FIX}") from None
    with archive:
        yield archive


def _description(archive: zipfile.ZipFile) -> Any:
    (name,) = (name for name in archive.namelist() if inside(name) == f"extra/{DESCRIPTION}")
    try:
        return json.loads(archive.read(name))
    except (ValueError, zipfile.BadZipFile):
        return None


def _torch_version(path: Path) -> str:
    with _opened(path) as archive:
        assert archive is not None  # only programs say so
        try:
            (name,) = (name for name in archive.namelist() if inside(name).startswith("models/"))
            return str(json.loads(archive.read(name))["torch_version"])
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return "of an unknown version"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
