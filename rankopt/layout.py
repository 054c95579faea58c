"""Layouts: in which order a matrix product lays out its result.

The columns of `X W` may stand in any order (W is permuted once per model version), so may the batch, and the transpose
costs the same. Which order is best is known only when all readers are: so a program is written once, the orders that
its readers would have liked are noted, and it is written again with the layouts that need the cheapest copies. It is
kept if it is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, permutations

from rankopt.axes import Axis, Group
from rankopt.prices import Profile

Positions = tuple[int, ...]
PERMUTED = 4
"""Groups of more axes than this keep their order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Whether a product is written transposed, and the order of its batch and of its column axes."""

    transposed: bool
    batch: Positions
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


@dataclass(frozen=True, slots=True)
class Derived:
    """A tensor that follows the order of another one: for each of its dims the dim there, None for a new one."""

    source: int
    dims: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """A reader that takes a tensor as groups of its dims (batch, rows, columns), each merged into one."""

    dims: int
    groups: tuple[Positions, ...]
    sizes: tuple[int, ...]

    def time(self, laid: Sequence[int], profile: Profile) -> float:
        """What it spends on a copy where the dims lie as `laid`."""
        form = matrix_form(laid, *self.groups)
        if not form.copied and (profile.strided_batch or not form.inside):
            return 0.0
        run = math.prod(self.sizes[dim] for dim in laid[len(laid) - form.run :])
        return profile.call + profile.move(math.prod(self.sizes), run)


@dataclass(frozen=True, slots=True)
class Normalised:
    """A softmax over one dim of a tensor: a reader to which it matters where that dim lies."""

    dims: int
    dim: int
    sizes: tuple[int, ...]

    def time(self, laid: Sequence[int], profile: Profile) -> float:
        """What it takes where the dims lie as `laid`."""
        return profile.softmax([self.sizes[dim] for dim in laid], laid.index(self.dim))


Reader = Read | Normalised
"""Whoever takes a tensor, and is quicker if its dims lie in one order than in another."""


@dataclass(frozen=True, slots=True)
class MatrixForm:
    """How a tensor becomes a batch of matrices."""

    copied: bool
    """Whether elements have to move: a group does not lie together, or the batch is innermost."""
    inside: bool
    """Whether the batch lies between the dims of a matrix."""
    run: int
    """How many innermost dims stay together when it is copied."""


def matrix_form(dims: Sequence[Hashable], *groups: Sequence[Hashable]) -> MatrixForm:
    """What it takes to see a tensor with these dims as `groups` of them: (batch, rows, columns)."""
    places = [[dims.index(dim) for dim in group if dim in dims] for group in groups]
    apart = any(b != a + 1 for group in places for a, b in pairwise(group))
    innermost = bool(places[0]) and len(dims) - 1 in places[0]
    last = next((group for group in places[1:] if len(dims) - 1 in group), [])
    run = 0
    while run < len(last) and last[-1 - run] == len(dims) - 1 - run:
        run += 1
    return MatrixForm(apart or innermost, bool(places[0]) and places[0][0] != 0, run)


@dataclass(slots=True)
class Layouts:
    """The layouts of one interpretation: those that are asked for, and those that readers would have liked.

    Products are numbered in the order in which they are first written, which is the same in every interpretation; a
    number that means another product in another program leads to a valid program all the same.
    """

    asked: Mapping[int, Layout] = field(default_factory=dict[int, Layout])
    _numbers: dict[object, int] = field(default_factory=dict[object, int])
    _written: dict[int, Written] = field(default_factory=dict[int, Written])
    _derived: dict[int, Derived] = field(default_factory=dict[int, Derived])
    _reads: dict[int, list[Reader]] = field(default_factory=dict[int, list[Reader]])

    def number(self, product: object) -> int:
        """The number of a product, given what identifies it."""
        return self._numbers.setdefault(product, len(self._numbers))

    def layout(self, number: int, batch: int, columns: int, transposed: bool) -> Layout:
        """The layout asked for, or the given one with all axes in their own order."""
        asked = self.asked.get(number)
        own = Layout(transposed, tuple(range(batch)), tuple(range(columns)))
        fits = asked is not None and (len(asked.batch), len(asked.columns)) == (batch, columns)
        return asked if asked is not None and fits else own

    def wrote(self, tensor: int, written: Written) -> None:
        """Notes that the expression with the serial number `tensor` is this product."""
        self._written.setdefault(tensor, written)

    def derive(self, tensor: int, axes: Group, source: int, source_axes: Group) -> None:
        """Notes that a tensor has the dims of another one in their order, and maybe more."""
        if tensor != source and tensor not in self._written:
            dims = tuple(source_axes.index(axis) if axis in source_axes else None for axis in axes)
            self._derived.setdefault(tensor, Derived(source, dims))

    def read(self, tensor: int, axes: Group, groups: Sequence[Group], rows: int) -> None:
        """Notes that a reader takes the tensor as (batch, rows, columns), each a merge of one of `groups`."""
        wanted = tuple(tuple(axes.index(axis) for axis in group if axis in axes) for group in groups)
        sizes = tuple(axis.length(rows) for axis in axes)
        self._reads.setdefault(tensor, []).append(Read(len(axes), wanted, sizes))

    def normalise(self, tensor: int, axes: Group, axis: Axis, rows: int) -> None:
        """Notes that a softmax takes the tensor along one of its axes."""
        sizes = tuple(axis.length(rows) for axis in axes)
        self._reads.setdefault(tensor, []).append(Normalised(len(axes), axes.index(axis), sizes))

    def better(self, profile: Profile) -> dict[int, Layout]:
        """The layouts with the cheapest copies, for the products that would do with cheaper ones."""
        readers: dict[int, list[tuple[Reader, list[int | None]]]] = {}
        for tensor, reads in self._reads.items():
            source, dims = self._origin(tensor, reads[0].dims)
            if source in self._written:
                readers.setdefault(source, []).extend((read, dims) for read in reads)
        found: dict[int, Layout] = {}
        for tensor, reads_of in readers.items():
            written = self._written[tensor]
            present = _spent(written.order, written.order, reads_of, profile)
            if not present:
                continue
            choices = [(_spent(order, written.order, reads_of, profile), layout) for layout, order in _choices(written)]
            cheapest, layout = min(choices, key=lambda choice: choice[0])
            if cheapest < present:
                found.setdefault(written.number, layout)
        return found

    def _origin(self, tensor: int, count: int) -> tuple[int, list[int | None]]:
        """The product whose order a tensor follows, and which of its dims each dim is."""
        dims: list[int | None] = list(range(count))
        while tensor in self._derived:
            derived = self._derived[tensor]
            dims = [None if dim is None else derived.dims[dim] for dim in dims]
            tensor = derived.source
        return tensor, dims


def _choices(written: Written) -> Iterator[tuple[Layout, Positions]]:
    """All layouts that a product could have, and the order of its dims in each."""
    rows = tuple(range(written.batch, written.batch + written.rows))
    first = written.batch + written.rows
    was_transposed = written.order[written.batch : written.batch + 1] != rows[:1]
    for batch in _orders(written.batch, permuted=True):
        for columns in _orders(written.columns, permuted=written.may_permute):
            moved = tuple(first + place for place in columns)
            for transposed in (False, True) if written.may_transpose else (was_transposed,):
                order = (*batch, *moved, *rows) if transposed else (*batch, *rows, *moved)
                yield Layout(transposed, batch, columns), order


def _orders(count: int, *, permuted: bool) -> Sequence[Positions]:
    own = tuple(range(count))
    return list(permutations(own)) if permuted and count <= PERMUTED else [own]


def _spent(
    order: Positions, was: Positions, reads: Sequence[tuple[Reader, list[int | None]]], profile: Profile
) -> float:
    """Time that readers spend on how the dims of a product lie if they, which lay as `was`, lie as `order`."""
    return sum(read.time(_reordered(dims, order, was), profile) for read, dims in reads)


def _reordered(dims: Sequence[int | None], order: Positions, was: Positions) -> list[int]:
    """The dims of a reader in the new order of those of the product; what it added stays behind what it followed."""
    blocks: dict[int, list[int]] = {-1: []}
    current = -1
    for dim, source in enumerate(dims):
        if source is not None:
            current = was[source]
        blocks.setdefault(current, []).append(dim)
    return [*blocks[-1], *(dim for place in order for dim in blocks.get(place, ()))]
