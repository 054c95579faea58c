"""Criteo: 45,840,617 impressions of display advertisements in a week, with 39 features of undisclosed meaning.

Kaggle Display Advertising Challenge, 2014: `train.txt`, tab separated, no header: label, I1..I13 (counts), C1..C26 (32
bit hashes as text), any of them empty.

    label      1: clicked
    ids        hashed (see `rankopt.zoo.data.hashing`); a count below ten, negative or missing is one value, as in the
               public code of MLCC; a missing category is UNKNOWN
    context    I1..I13, C1..C13; target C14..C26: a convention, since the meaning is not known
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import compute

from rankopt.zoo.data.delimited import Layout, columns_of, read_blocks, read_labels
from rankopt.zoo.data.hashing import HashEncoder
from rankopt.zoo.data.prepared import Block, Raw, encoded, find_file, prepared
from rankopt.zoo.dataset import Dataset
from rankopt.zoo.errors import ZooError

LABEL = "label"
COUNTS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
TARGET = CATEGORIES[13:]
LAYOUT = Layout((LABEL, *COUNTS, *CATEGORIES), "\t", has_header=False)
SMALL = 10
"""Counts below are one value."""


def load(path: Path, cache: Path | None = None) -> Dataset:
    """The data set from `train.txt`, gzipped or not, or from its folder.

    Raises:
        ZooError: the file is missing, damaged or of another layout.
    """
    file = find_file(path, "train.txt")

    def read(encoders: Mapping[str, HashEncoder]) -> Iterator[Block]:
        first_row = 0
        for block in read_blocks(file, LAYOUT):
            counts = {name: coarse(file, name, block.column(name)) for name in COUNTS}
            ids = encoded(encoders, counts | columns_of(block, CATEGORIES))
            yield Block(ids, read_labels(file, block.column(LABEL), first_row))
            first_row += len(block)

    return prepared(Raw("criteo", (file,), (*COUNTS, *CATEGORIES), TARGET, read), cache)


def coarse(path: Path, name: str, texts: pa.Array) -> pa.Array:
    """Counts as text, all that are small or missing as "0".

    Raises:
        ZooError: something that is no whole number, or none of 64 bits, stands in the column.
    """
    given = compute.if_else(compute.equal(texts, ""), "0", texts)
    try:
        counts = given.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ZooError(f"{path}: expected whole numbers of 64 bits in column {name}: {error}") from error
    return compute.if_else(compute.less(counts, SMALL), "0", given)
