"""Files that are either written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rankopt.zoo.errors import ZooError


def check_output(path: Path, force: bool) -> None:
    """Finds out before the work, not after it, that its result could not be written.

    Raises:
        ZooError: there is no such folder, or the file exists and `force` is not set.
    """
    if not path.parent.is_dir():
        raise ZooError(f"expected a folder to write {path} to, found no {path.parent}.\n  fix: create it")
    if path.exists() and not force:
        raise ZooError(f"expected a new file, found that {path} exists.\n  fix: --force, or another name")


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill a temporary file, then moves it to `path`, which an error leaves as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
