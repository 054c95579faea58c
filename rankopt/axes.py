"""Axes: the names by which deferred values know their dimensions.

A tensor of the captured program has *dims*; a deferred value has *axes*. One dim is a group of axes, major to minor,
as in einops: after `view(x, [R, F * D])` the second dim is the group `(f, d)`, and nothing has moved. A dim of size one
is the empty group, so one candidate is never mistaken for a broadcast.

`ROW` is the axis that counts candidates. A value that does not have it is the same for all of them (rank-2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """One named axis. `size` is in elements; the row axis has size 0, for its length is known only at run time."""

    serial: int
    size: int

    def __repr__(self) -> str:
        return "ROW" if self is ROW else f"a{self.serial}:{self.size}"

    def length(self, rows: int) -> int:
        """Number of elements, given the number of candidates."""
        return rows if self is ROW else self.size


ROW = Axis(serial=0, size=0)

Group = tuple[Axis, ...]
"""The axes of one dim, major to minor; `()` is a dim of size one."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The size `times * N`, where N is the number of candidates (only known at run time)."""

    times: int = 1

    def __repr__(self) -> str:
        return "N" if self.times == 1 else f"{self.times}*N"


Size = int | Rows
Shape = tuple[Size, ...]


class AxisFactory:
    """Numbers fresh axes in the order of their creation, so that the same model always gives the same program."""

    def __init__(self) -> None:
        self._serials: Iterator[int] = itertools.count(1)

    def fresh(self, size: int) -> Axis:
        """A new axis of `size` elements."""
        return Axis(next(self._serials), size)

    def like(self, axes: Iterable[Axis]) -> Group:
        """New axes of the sizes of `axes`; the row axis, of which there is one, stays itself."""
        return tuple(axis if axis is ROW else self.fresh(axis.size) for axis in axes)


def sizes(axes: Iterable[Axis]) -> tuple[int, ...]:
    """Sizes of axes among which ROW is not."""
    return tuple(axis.size for axis in axes)


def volume(axes: Iterable[Axis], rows: int) -> int:
    """Number of elements spanned by `axes` when there are `rows` candidates."""
    return math.prod(axis.length(rows) for axis in axes)


def group_size(group: Sequence[Axis]) -> Size:
    """Size of the dim that `group` stands for."""
    product = math.prod(axis.size for axis in group if axis is not ROW)
    return Rows(product) if ROW in group else product


def joined(shape: Sequence[Size]) -> Size:
    """The size of dims that become one; at most one of them counts rows."""
    size = elements(shape, 1)
    return Rows(size) if any(isinstance(dim, Rows) for dim in shape) else size


def elements(shape: Iterable[Size], rows: int) -> int:
    """Number of elements of a tensor of `shape` when there are `rows` candidates."""
    return math.prod(size.times * rows if isinstance(size, Rows) else size for size in shape)
