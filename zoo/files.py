"""Files that are either written whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rankopt.zoo.errors import ZooError


def refuse_overwrite(path: Path, force: bool) -> None:
    """Guards a file that is already there.

    Raises:
        ZooError: the file exists and `force` is not set.
    """
    if path.exists() and not force:
        raise ZooError(f"expected a new file, found that {path} exists.\n  fix: --force, or another name")


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill a temporary file, then moves it to `path`, which an error leaves as it was."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
