"""Avazu: 40,428,967 impressions of mobile advertisements in ten days.

Kaggle Click-Through Rate Prediction, 2014: `train.csv` with a header of 24 columns. `id` has more than 64 bits and is
not read; all others are hashed as text (see `rankopt.zoo.data.hashing`).

    label      click
    context    hour (YYMMDDHH), banner_pos, site_*, app_*, device_*
    target     C1, C14..C21, said to describe the advertisement
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rankopt.zoo.data.delimited import Layout, columns_of, read_blocks, read_labels
from rankopt.zoo.data.hashing import HashEncoder
from rankopt.zoo.data.prepared import Block, Raw, encoded, find_file, prepared
from rankopt.zoo.dataset import Dataset

LABEL = "click"
TARGET = ("C1", *(f"C{i}" for i in range(14, 22)))
FIELDS = (
    "hour",
    "C1",
    "banner_pos",
    "site_id",
    "site_domain",
    "site_category",
    "app_id",
    "app_domain",
    "app_category",
    "device_id",
    "device_ip",
    "device_model",
    "device_type",
    "device_conn_type",
    *TARGET[1:],
)
LAYOUT = Layout((LABEL, *FIELDS), ",", has_header=True)


def load(path: Path, cache: Path | None = None) -> Dataset:
    """The data set from `train.csv`, gzipped or not, or from its folder.

    Raises:
        ZooError: the file is missing, damaged or of another layout.
    """
    file = find_file(path, "train.csv")

    def read(encoders: Mapping[str, HashEncoder]) -> Iterator[Block]:
        first_row = 0
        for block in read_blocks(file, LAYOUT):
            labels = read_labels(file, block.column(LABEL), first_row)
            yield Block(encoded(encoders, columns_of(block, FIELDS)), labels)
            first_row += len(block)

    return prepared(Raw("avazu", (file,), FIELDS, TARGET, read), cache)
