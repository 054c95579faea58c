"""Files that are written whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from rankopt.errors import OutputError

if TYPE_CHECKING:
    from typing_extensions import Buffer


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
            patient = _PatientFile(file)
            write(cast(BinaryIO, patient))
            patient.check()
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


def write_together(path: Path, fill: Callable[[Path], None], overwrite: bool = False) -> list[Path]:
    """Lets `fill` write any number of files into a temporary folder, then moves them all beside `path`.

    Whatever stops `fill`, nothing is left of its files, and those that were there before are as they were. Returns
    where the files are, in the order of their names. Raises OutputError where one of them exists and `overwrite` is
    not set, or cannot be written.
    """
    if not path.parent.is_dir():
        require_writable(path, overwrite)
    folder = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        folder.mkdir()
        fill(folder)
        files = sorted(folder.iterdir())
        places = [path.with_name(file.name) for file in files]
        for file, place in zip(files, places, strict=True):
            require_writable(place, overwrite)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        for file, place in zip(files, places, strict=True):
            os.replace(file, place)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Nothing was changed.\n"
            "  fix: make room there, or write to another disk"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return places


class _PatientFile(io.BufferedIOBase):
    """A file for writers in C++, in which an exception from `write` would end the process.

    What goes wrong, a full disk or Ctrl-C, is kept until the writer is done; `check` raises it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._failure: BaseException | None = None

    def write(self, data: Buffer, /) -> int:
        """Writes, unless something went wrong before."""
        if self._failure is None:
            try:
                self._file.write(data)
            except BaseException as failure:
                self._failure = failure
        return memoryview(data).nbytes

    def check(self) -> None:
        """Raises what went wrong."""
        if self._failure is not None:
            raise self._failure

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def seekable(self) -> bool:
        """torch asks for it, and goes to the start when it is done."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Stays where it is: nothing is written after that."""
        return offset
