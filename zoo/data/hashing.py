"""Text to ids without a vocabulary: hashed values, in the manner of the public benchmarks of MLCC.

Every value falls into one of a million slots per field (arXiv:2602.12041 and its public code, which hashes all fields
into one table; here fields do not share rows). Slots are numbered as they are first met, so that a field's table is no
larger than the number of its values.
"""

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankopt.zoo.fields import UNKNOWN

SLOTS = 1_000_000

Ids = NDArray[np.int32]


class HashEncoder:
    """The ids of one field; a missing value is UNKNOWN. Needs 4 MB, however many values there are."""

    def __init__(self, missing: frozenset[str] = frozenset({""}), slots: int = SLOTS) -> None:
        self.missing = missing
        self.slots = slots
        self.vocabulary = UNKNOWN + 1
        self._ids = np.zeros(slots, dtype=np.int32)

    def encode(self, texts: pa.Array) -> Ids:
        """Ids [R] of R texts. They depend on the order of the rows, not on how it is cut into blocks."""
        encoded = texts.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        if not values:
            return np.zeros(0, dtype=np.int32)
        slots = np.fromiter((slot(value, self.slots) for value in values), dtype=np.int64, count=len(values))
        is_missing = np.fromiter((value in self.missing for value in values), dtype=bool, count=len(values))
        self._number(slots[~is_missing])
        ids = np.where(is_missing, np.int32(UNKNOWN), self._ids[slots])
        return ids[encoded.indices.to_numpy()]

    def _number(self, slots: NDArray[np.int64]) -> None:
        unseen = slots[self._ids[slots] == 0]
        distinct, first = np.unique(unseen, return_index=True)
        self._ids[unseen[np.sort(first)]] = np.arange(self.vocabulary, self.vocabulary + len(distinct), dtype=np.int32)
        self.vocabulary += len(distinct)


def slot(value: str, slots: int) -> int:
    """Where a value falls: the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little") % slots


def random_parts(first_row: int, rows: int, shares: tuple[int, ...]) -> NDArray[np.intp]:
    """The part in which each of the rows falls, for parts as large as `shares` to one another.

    The number of a row alone decides (its bits mixed as by splitmix64), so that rows may come in any blocks.
    """
    with np.errstate(over="ignore"):
        z = (np.arange(first_row, first_row + rows, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    uniform = z.astype(np.float64) / 2.0**64
    return np.searchsorted(np.cumsum(shares) / sum(shares), uniform, side="right").clip(max=len(shares) - 1)
