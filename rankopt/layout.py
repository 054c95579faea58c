"""Layouts: in which order a matrix product lays out its result.

The columns of `X W` may stand in any order (W is permuted once per model version), and its transpose costs the same.
Which order is best is known only when all readers are: so a program is written once, the layouts that its readers would
have liked are noted, and it is written again with the layouts that need the fewest copies. It is kept if it is cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, permutations

from rankopt.axes import Axis, Group

Positions = tuple[int, ...]
PERMUTED = 4
"""Products with more column axes than this keep their order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Whether a product is written transposed, and the order of its column axes."""

    transposed: bool
    columns: Positions


@dataclass(frozen=True, slots=True)
class Written:
    """A product as it was written: its number, and where each dim of the result is in (batch, rows, columns)."""

    number: int
    order: Positions
    batch: int
    rows: int
    columns: int
    may_permute: bool
    may_transpose: bool


@dataclass(slots=True)
class Layouts:
    """The layouts of one interpretation: those that are asked for, and those that readers would have liked.

    Products are numbered in the order in which they are first written, which is the same in every interpretation; a
    number that means another product in another program leads to a valid program all the same.
    """

    asked: Mapping[int, Layout] = field(default_factory=dict[int, Layout])
    _numbers: dict[object, int] = field(default_factory=dict[object, int])
    _written: dict[int, Written] = field(default_factory=dict[int, Written])
    _reads: dict[int, list[tuple[int, tuple[Positions, ...]]]] = field(
        default_factory=dict[int, list[tuple[int, tuple[Positions, ...]]]]
    )

    def number(self, product: object) -> int:
        """The number of a product, given what identifies it."""
        return self._numbers.setdefault(product, len(self._numbers))

    def layout(self, number: int, columns: int, transposed: bool) -> Layout:
        """The layout asked for, or the given one with columns in their own order."""
        asked = self.asked.get(number)
        if asked is not None and sorted(asked.columns) == list(range(columns)):
            return asked
        return Layout(transposed, tuple(range(columns)))

    def wrote(self, tensor: int, written: Written) -> None:
        """Notes that the expression with the serial number `tensor` is this product."""
        self._written.setdefault(tensor, written)

    def read(self, tensor: int, axes: Group, groups: Sequence[Group], volume: int) -> None:
        """Notes that a reader takes the tensor as (batch, rows, columns), each a merge of one of `groups`."""
        written = self._written.get(tensor)
        if written is None or len(axes) != len(written.order):
            return
        place: dict[Axis, int] = dict(zip(axes, written.order, strict=True))
        wanted = tuple(tuple(place[axis] for axis in group if axis in place) for group in groups)
        self._reads.setdefault(tensor, []).append((volume, wanted))

    def better(self) -> dict[int, Layout]:
        """The layouts with the fewest copied elements, for the products that would do with fewer."""
        found: dict[int, Layout] = {}
        for tensor, reads in self._reads.items():
            written = self._written[tensor]
            present = _copied(written.order, reads)
            if not present:
                continue
            choices = [(_copied(order, reads), layout) for layout, order in _choices(written)]
            fewest, layout = min(choices, key=lambda choice: choice[0])
            if fewest < present:
                found.setdefault(written.number, layout)
        return found


def _choices(written: Written) -> list[tuple[Layout, Positions]]:
    """All layouts that a product could have, and the order of its dims in each."""
    batch = tuple(range(written.batch))
    rows = tuple(range(written.batch, written.batch + written.rows))
    first = written.batch + written.rows
    own = tuple(range(written.columns))
    orders = list(permutations(own)) if written.may_permute and written.columns <= PERMUTED else [own]
    choices: list[tuple[Layout, Positions]] = []
    was_transposed = written.order[written.batch : written.batch + 1] != rows[:1]
    for columns in orders:
        moved = tuple(first + place for place in columns)
        for transposed in (False, True) if written.may_transpose else (was_transposed,):
            order = (*batch, *moved, *rows) if transposed else (*batch, *rows, *moved)
            choices.append((Layout(transposed, columns), order))
    return choices


def _copied(order: Positions, reads: Sequence[tuple[int, tuple[Positions, ...]]]) -> int:
    """Elements that readers copy if the dims lie in memory in this order.

    A group that does not lie together is copied, and so is a batch of matrices with neither dim innermost; a batch
    that is not the outermost costs half as much, for strides that not every backend has.
    """
    at = {place: i for i, place in enumerate(order)}
    total = 0
    for volume, groups in reads:
        apart = any(at[b] != at[a] + 1 for group in groups for a, b in pairwise(group))
        batch = [at[place] for place in groups[0]]
        if apart or len(order) - 1 in batch:
            total += 2 * volume
        elif batch and 0 not in batch:
            total += volume
    return total
