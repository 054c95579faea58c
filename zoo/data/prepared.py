"""Large data: raw text is hashed and split once, into Parquet files that are found again by a key.

The recipe is that of MLCC's public code (arXiv:2602.12041): all features are hashed ids, rows are split 90:1:9 into
training, validation and test, and every model is trained for one epoch with Adam 1e-3 in batches of 2,048. The split is
random by the number of the row.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankopt.zoo.data.hashing import HashEncoder, Ids, random_parts
from rankopt.zoo.data.parquet import ParquetRows, RowWriter
from rankopt.zoo.dataset import Dataset, Recipe, Schedule
from rankopt.zoo.errors import ZooError
from rankopt.zoo.fields import Field, Schema

FORMAT = 1
"""Grows when prepared files change their meaning."""

PARTS = {"train": 90, "validation": 1, "test": 9}
SCHEDULE = Schedule(batch_size=2048, epochs=1)
RECIPE = Recipe(learning_rate=1e-3, embedding_l2=0.0)
SCHEMA_FILE = "schema.json"
PROBE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of the raw data: ids [R] by field, and labels [R]."""

    ids: Mapping[str, Ids]
    labels: pa.Array


@dataclass(frozen=True, slots=True)
class Raw:
    """Raw data: its files, its fields by role in the order of a row, and how to read it with fresh encoders."""

    name: str
    files: tuple[Path, ...]
    fields: tuple[str, ...]
    target: tuple[str, ...]
    read: Callable[[Mapping[str, HashEncoder]], Iterator[Block]]
    missing: frozenset[str] = frozenset({""})


def prepared(raw: Raw, cache: Path | None) -> Dataset:
    """The data set, from the cache if it is there, else after preparing it there.

    Raises:
        ZooError: a raw file is missing, damaged or of another layout.
    """
    folder = (cache or default_cache()) / f"{raw.name}-{cache_key(raw)}"
    if not folder.exists():
        prepare(raw, folder)
    content = json.loads((folder / SCHEMA_FILE).read_text())
    fields = tuple(Field(**field) for field in content["fields"])
    schema = Schema(fields, tuple(content["context"]), tuple(content["target"]))
    parts = {part: ParquetRows.open(folder / f"{part}.parquet", raw.fields) for part in PARTS}
    empty = [part for part, rows in parts.items() if not len(rows)]
    if empty:
        raise ZooError(f"{raw.files[0]} has too few rows to be split: nothing in {empty}.\n  fix: pass the whole file")
    return Dataset(
        raw.name, schema, parts["train"], parts["test"], SCHEDULE, validation=parts["validation"], recipe=RECIPE
    )


def prepare(raw: Raw, folder: Path) -> None:
    """Writes the three parts and the schema, all of them or none."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        encoders = {name: HashEncoder(raw.missing) for name in raw.fields}
        writers = [RowWriter(temporary / f"{part}.parquet", raw.fields) for part in PARTS]
        first_row = 0
        for block in raw.read(encoders):
            rows = np.stack([*(block.ids[name] for name in raw.fields), block.labels.to_numpy()], axis=1)
            parts = random_parts(first_row, len(rows), tuple(PARTS.values()))
            for part, writer in enumerate(writers):
                writer.write(rows[parts == part].astype(np.int32, copy=False))
            first_row += len(rows)
        for writer in writers:
            writer.close()
        fields = tuple(Field(name, encoders[name].vocabulary) for name in raw.fields)
        context = tuple(name for name in raw.fields if name not in raw.target)
        (temporary / SCHEMA_FILE).write_text(json.dumps(asdict(Schema(fields, context, raw.target)), indent=1))
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_key(raw: Raw) -> str:
    """Changes with the raw files (their sizes, times, beginnings and ends) and with what is made of them.

    Raises:
        ZooError: a file is missing.
    """
    facts: list[object] = [FORMAT, raw.fields, raw.target, sorted(raw.missing), PARTS]
    for path in raw.files:
        if not path.is_file():
            raise ZooError(f"expected the {raw.name} data at {path}, found no file.\n  fix: pass the path of the data")
        status = path.stat()
        with path.open("rb") as file:
            probes = file.read(PROBE_BYTES)
            file.seek(max(0, status.st_size - PROBE_BYTES))
            probes += file.read()
        facts.append([path.name, status.st_size, status.st_mtime_ns, hashlib.sha256(probes).hexdigest()])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def default_cache() -> Path:
    """$XDG_CACHE_HOME/rankopt, or ~/.cache/rankopt."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rankopt"


def encoded(encoders: Mapping[str, HashEncoder], columns: Mapping[str, pa.Array]) -> dict[str, Ids]:
    return {name: encoders[name].encode(column) for name, column in columns.items()}


def find_file(path: Path, name: str) -> Path:
    """The file itself, or the one of that name, gzipped or not, in the folder.

    Raises:
        ZooError: the folder has neither.
    """
    if not path.is_dir():
        return path
    for candidate in (path / name, path / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise ZooError(f"expected {name} or {name}.gz in {path}, found neither.\n  fix: pass the path of the data")
