"""Delimited text of any size, a block of rows at a time, every value as the text that it is.

Nothing is guessed: no number is parsed (an id may have more than 64 bits), no value means "missing", no quote is
special. What does not have the layout that was asked for is refused with the reason.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import compute, csv

from rankopt.zoo.errors import ZooError

BLOCK_BYTES = 1 << 24
"""Text that is parsed at a time; several times as much is needed in memory."""

SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", " ": "blank"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How the file should look: `columns` in their order where there is no header, else those that are needed."""

    columns: tuple[str, ...]
    delimiter: str
    has_header: bool


def read_blocks(path: Path, layout: Layout, block_bytes: int = BLOCK_BYTES) -> Iterator[pa.RecordBatch]:
    """The needed columns as text, block by block; the file may be gzipped.

    Raises:
        ZooError: the file is missing, empty, truncated, damaged or of another layout.
    """
    with readable(path):
        found = check_layout(path, layout)
        with open_text(path) as stream:
            # one thread: threads read ahead, which is paid for in memory
            reader = csv.open_csv(
                stream,
                csv.ReadOptions(
                    use_threads=False, block_size=block_bytes, column_names=found, skip_rows=int(layout.has_header)
                ),
                csv.ParseOptions(delimiter=layout.delimiter, quote_char=False),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(found, pa.string()),
                    include_columns=list(layout.columns),
                    strings_can_be_null=False,
                ),
            )
            yield from reader


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever reading runs into, as a ZooError that names the file."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise ZooError(f"{path} cannot be read: {error}.\n  fix: get the file again") from error
    except FileNotFoundError as error:
        raise ZooError(f"expected a file at {path}, found none.\n  fix: pass the path of the data") from error
    except OSError as error:
        raise ZooError(f"{path} is truncated or damaged: {error}.\n  fix: get the file again") from error


def open_text(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None)


def check_layout(path: Path, layout: Layout) -> list[str]:
    """The names of all columns of the file, in their order.

    Raises:
        ZooError: the first line has other columns than the layout, or is separated otherwise.
    """
    with open_text(path) as stream:
        line = stream.read(1 << 16).split(b"\n", 1)[0].decode(errors="replace").rstrip("\r").removeprefix("\ufeff")
    if not line:
        raise ZooError(f"expected rows in {path}, found an empty file.\n  fix: get the file again")
    fields = [name.strip() for name in line.split(layout.delimiter)]
    separator = SEPARATORS[layout.delimiter]
    if layout.has_header:
        missing = [name for name in layout.columns if name not in fields]
        if missing:
            raise ZooError(
                f"{path}: expected a header with the columns {missing}, separated by {separator}, found {line[:200]!r}"
                f".\n  fix: {other_separator(line, layout)}pass the raw file, with its header"
            )
        return fields
    if len(fields) != len(layout.columns):
        raise ZooError(
            f"{path}: expected {len(layout.columns)} fields separated by {separator}, found {len(fields)} in the first"
            f" line.\n  fix: {other_separator(line, layout)}pass the raw file, without a header"
        )
    return list(layout.columns)


def other_separator(line: str, layout: Layout) -> str:
    """A hint, where the line has as many fields as it should have with another separator."""
    for separator, name in SEPARATORS.items():
        if separator != layout.delimiter and len(line.split(separator)) >= len(layout.columns):
            return f"the fields seem to be separated by {name}; "
    return ""


def read_labels(path: Path, texts: pa.Array, first_row: int) -> pa.Array:
    """Labels 0 and 1 as int8.

    Raises:
        ZooError: something else stands in their column.
    """
    labels = compute.index_in(texts, pa.array(["0", "1"]))
    if labels.null_count:
        place = compute.index(labels.is_null(), True).as_py()
        found = texts[place].as_py()
        raise ZooError(
            f"{path}: expected a label 0 or 1, found {found!r} in row {first_row + place + 1}.\n"
            "  fix: pass the raw file"
        )
    return labels.cast(pa.int8())


def columns_of(block: pa.RecordBatch, names: Sequence[str]) -> dict[str, pa.Array]:
    return {name: block.column(name) for name in names}
