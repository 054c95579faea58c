"""Rows in a Parquet file: ids as int32, one column per field, read a few row groups at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from rankopt.zoo.data.delimited import readable
from rankopt.zoo.dataset import Rows, permutation

LABEL = "label"
GROUP_ROWS = 1 << 16
POOL_GROUPS = 8
"""Row groups that are shuffled together: half a million rows, 80 MB for 39 fields."""

Block = NDArray[np.int32]
"""[R, F + 1]: the fields and the label."""


class RowWriter:
    """Collects blocks of rows, and writes them in row groups of one size."""

    def __init__(self, path: Path, fields: Iterable[str]) -> None:
        self.names = (*fields, LABEL)
        self.rows = 0
        self._waiting: list[Block] = []
        self._writer = parquet.ParquetWriter(str(path), pa.schema([(name, pa.int32()) for name in self.names]))

    def write(self, block: Block) -> None:
        self._waiting.append(block)
        self.rows += len(block)
        if sum(map(len, self._waiting)) >= GROUP_ROWS:
            self._flush(keep_rest=True)

    def close(self) -> None:
        self._flush(keep_rest=False)
        self._writer.close()

    def _flush(self, keep_rest: bool) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        whole = len(rows) // GROUP_ROWS * GROUP_ROWS if keep_rest else len(rows)
        for start in range(0, whole, GROUP_ROWS):
            group = rows[start : min(start + GROUP_ROWS, whole)]
            columns = [pa.array(np.ascontiguousarray(column)) for column in group.T]
            self._writer.write_table(pa.table(columns, names=self.names))
        self._waiting = [rows[whole:]] if whole < len(rows) else []


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """A `RowSource` that never holds more than a pool of row groups.

    Shuffling draws the order of the row groups, and then that of the rows within a pool of them.
    """

    path: Path
    names: tuple[str, ...]
    rows: int

    @classmethod
    def open(cls, path: Path, names: Iterable[str]) -> "ParquetRows":
        """Raises ZooError where the file is missing or damaged."""
        with readable(path):
            return cls(path, tuple(names), parquet.ParquetFile(path).metadata.num_rows)

    def __len__(self) -> int:
        return self.rows

    def first(self, count: int) -> Rows:
        return next(self.batches(count))

    def only(self, names: Iterable[str]) -> "ParquetRows":
        return replace(self, names=tuple(names))

    def batches(self, size: int, seed: int | None = None, start: int = 0) -> Iterator[Rows]:
        waiting = np.zeros((0, len(self.names) + 1), dtype=np.int32)
        for block in self._blocks(seed, skip=start * size):
            waiting = np.concatenate([waiting, block])
            whole = len(waiting) // size * size
            for begin in range(0, whole, size):
                yield self._as_rows(waiting[begin : begin + size])
            waiting = waiting[whole:]
        if len(waiting):
            yield self._as_rows(waiting)

    def _blocks(self, seed: int | None, skip: int) -> Iterator[Block]:
        with readable(self.path):
            file = parquet.ParquetFile(self.path, memory_map=True)
            groups = torch.arange(file.num_row_groups) if seed is None else permutation(file.num_row_groups, seed)
            for number, pool in enumerate(groups.split(POOL_GROUPS), start=1):
                rows = sum(file.metadata.row_group(group).num_rows for group in pool.tolist())
                if skip >= rows:
                    skip -= rows
                    continue
                block = self._read(file, pool.tolist())
                if seed is not None:
                    block = block[permutation(rows, seed + number).numpy()]
                yield block[skip:]
                skip = 0

    def _read(self, file: parquet.ParquetFile, groups: list[int]) -> Block:
        table = file.read_row_groups(groups, columns=[*self.names, LABEL], use_threads=False)
        block = np.empty((table.num_rows, len(self.names) + 1), dtype=np.int32)
        for place, name in enumerate((*self.names, LABEL)):
            block[:, place] = table.column(name).to_numpy()
        return block

    def _as_rows(self, block: Block) -> Rows:
        ids = torch.from_numpy(block).t().long()  # [F + 1, R]: a contiguous row per field
        return Rows(dict(zip(self.names, ids, strict=False)), ids[-1].float())
