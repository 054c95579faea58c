"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rankopt.errors import OutputError


def require_writable(path: Path, overwrite: bool = False) -> None:
    """Finds out before the work, not after it, that its result could not be written.

    Raises OutputError where there is no such folder, where `path` is one, or where the file exists and
    `overwrite` is not set.
    """
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}.\n  fix: create it")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder.\n  fix: give the name of a file in it")
    if path.exists() and not overwrite:
        raise OutputError(
            f"cannot write {path}: it exists.\n  fix: another name, or overwrite=True (--force) to replace it"
        )


def write_whole(path: Path, write: Callable[[BinaryIO], object], overwrite: bool = False) -> None:
    """Lets `write` fill a temporary file in the same folder, then moves it to `path` in one step.

    Whatever stops it, an error, a full disk or Ctrl-C, `path` is as it was before and no other file is left.
    Raises OutputError where the file cannot be written; see also `require_writable`.
    """
    require_writable(path, overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Nothing was changed.\n"
            "  fix: make room there, or write to another disk"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
