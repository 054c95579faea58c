"""Archives that somebody has tampered with."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def with_member(source: Path, target: Path, ending: str, change: Callable[[bytes], bytes | None]) -> Path:
    """A copy of an archive in which one member is changed, or left out where `change` gives None."""
    found = False
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content: bytes | None = old.read(name)
            if name.endswith(ending):
                found = True
                content = change(old.read(name))
            if content is not None:
                new.writestr(name, content)
    assert found, ending
    return target


def with_json(source: Path, target: Path, ending: str, change: Callable[[Any], None]) -> Path:
    """A copy of an archive in which the JSON of one member is changed in place."""

    def changed(content: bytes) -> bytes:
        data = json.loads(content)
        change(data)
        return json.dumps(data).encode()

    return with_member(source, target, ending, changed)


def with_added(source: Path, target: Path, name: str, content: bytes = b"") -> Path:
    """A copy of an archive with one more member in its folder."""
    with_member(source, target, "/archive_format", lambda old: old)
    with zipfile.ZipFile(target, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/{name}", content)
    return target
