"""TaobaoAds: 26,557,961 impressions of advertisements in eight days, with the profiles of users and advertisements.

Alibaba, "Ad Display/Click Data on Taobao.com", 2018: `raw_sample.csv` (user, time_stamp, adgroup_id, pid, nonclk, clk)
is joined with `user_profile.csv` on the user and with `ad_feature.csv` on the advertisement. A user or advertisement
that has no entry there, and an empty or NULL value, is UNKNOWN.

    label      clk
    context    userid, time_stamp, pid and the profile of the user
    target     adgroup_id, cate_id, campaign_id, customer, brand, price
    ids        hashed as text, also the time and the price, as in the public code of MLCC
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute

from rankopt.zoo.data.delimited import Layout, read_blocks, read_labels
from rankopt.zoo.data.hashing import HashEncoder, Ids
from rankopt.zoo.data.prepared import Block, Raw, encoded, find_file, prepared
from rankopt.zoo.dataset import Dataset
from rankopt.zoo.errors import ZooError
from rankopt.zoo.fields import UNKNOWN

LABEL = "clk"
SAMPLE = {"userid": "user", "time_stamp": "time_stamp", "adgroup_id": "adgroup_id", "pid": "pid"}
"""Fields that are read off `raw_sample.csv`, and what they are called there."""
AD = ("cate_id", "campaign_id", "customer", "brand", "price")
USER = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
TARGET = ("adgroup_id", *AD)
MISSING = frozenset({"", "NULL"})


def load(folder: Path, cache: Path | None = None) -> Dataset:
    """The data set from the folder of the three files, gzipped or not.

    Raises:
        ZooError: a file is missing, damaged or of another layout.
    """
    if not folder.is_dir():
        raise ZooError(f"expected the folder of the three TaobaoAds files, found {folder}.\n  fix: pass their folder")
    names = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv")
    sample, ads, users = files = tuple(find_file(folder, name) for name in names)

    def read(encoders: Mapping[str, HashEncoder]) -> Iterator[Block]:
        ad = Table.read(ads, "adgroup_id", AD, encoders)
        user = Table.read(users, "userid", USER, encoders)
        first_row = 0
        for block in read_blocks(sample, Layout((*SAMPLE.values(), LABEL), ",", has_header=True)):
            ids = encoded(encoders, {field: block.column(column) for field, column in SAMPLE.items()})
            ids |= ad.look_up(block.column("adgroup_id")) | user.look_up(block.column("user"))
            yield Block(ids, read_labels(sample, block.column(LABEL), first_row))
            first_row += len(block)

    raw = Raw("taobao", files, (*SAMPLE, *AD, *USER), TARGET, read, MISSING)
    return prepared(raw, cache)


@dataclass(frozen=True, slots=True)
class Table:
    """Encoded features by key."""

    keys: pa.Array
    features: dict[str, Ids]

    @classmethod
    def read(cls, path: Path, key: str, names: tuple[str, ...], encoders: Mapping[str, HashEncoder]) -> "Table":
        """Raises ZooError where the file has other columns, or a key twice."""
        keys: list[pa.Array] = []
        blocks: list[dict[str, Ids]] = []
        for block in read_blocks(path, Layout((key, *names), ",", has_header=True)):
            keys.append(block.column(key))
            blocks.append(encoded(encoders, {name: block.column(name) for name in names}))
        if not keys:
            raise ZooError(f"expected rows in {path}, found the header alone.\n  fix: get the file again")
        joined = pa.concat_arrays(keys)
        if len(joined.unique()) < len(joined):
            raise ZooError(f"{path}: expected every {key} once, found one twice.\n  fix: get the file again")
        return cls(joined, {name: np.concatenate([block[name] for block in blocks]) for name in names})

    def look_up(self, keys: pa.Array) -> dict[str, Ids]:
        """The features of each key; UNKNOWN where there is none."""
        places = compute.index_in(keys, self.keys)
        is_known = places.is_valid().to_numpy(zero_copy_only=False)
        index = places.fill_null(0).to_numpy()
        return {name: np.where(is_known, ids[index], np.int32(UNKNOWN)) for name, ids in self.features.items()}
