"""What things cost: the numbers with which decisions are made.

Only their ratios matter. Multiply-adds of large products are cheap, and everything else is dearer than one would think:
in eager calls an element written costs as much as six of them, one that is moved up to two hundred, a call as much as
a hundred thousand. The prices of each backend are in `backends`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rankopt.errors import FormatError


@dataclass(frozen=True, slots=True)
class Profile:
    """Prices in nanoseconds."""

    name: str
    """The backend that they are of."""
    call: float
    """Dispatch of a call that does work."""
    view: float
    """Dispatch of a call that makes a view."""
    request: float
    """What comes before the first call of a request."""
    tensor: float
    """What comes there for each input and each weight."""
    multiply_add: float
    """One multiply-add of a large matrix product."""
    narrow: tuple[tuple[int, float], ...]
    """How many times dearer it is where the result has fewer columns than the given number, ascending."""
    short: tuple[tuple[int, float], ...]
    """The same for rows."""
    matrix: float
    """Set-up of one matrix in a batch of products."""
    small_multiply_add: float
    """One multiply-add in a batch of small matrices, whose columns are computed in vectors of 16."""
    ragged: float
    """One row of such a matrix that ends within a vector."""
    product_element: float
    """One element of the result of a product."""
    element: float
    """One element written by a simple elementwise call."""
    broadcast: float
    """One run of neighbours in the result of an elementwise call along which each operand is whole, or repeated."""
    function: float
    """One element of an exponential."""
    functions: tuple[tuple[str, float], ...]
    """How many times as dear other transcendental functions are, by the names of the calls."""
    norm: float
    """One element of a softmax or a norm."""
    norm_row: float
    """One row of a softmax or a norm."""
    short_softmax: float
    """One element of a softmax over fewer neighbours than a vector has; 0 where they cost what others do."""
    ragged_softmax: float
    """One element of a softmax over a dim that is not the last, beyond the last whole vector of what lies behind it."""
    swapped_softmax: bool
    """Whether a softmax over a dim that is not the last swaps it with the last one, and back."""
    guarded: float
    """How many times dearer than a softmax one is that may find a row without a finite number."""
    read: float
    """One element read by a sum or a maximum."""
    reduced: float
    """One run of neighbours that it reads, all reduced or all kept."""
    maximum: float
    """One element of such a run beyond a multiple of 32, which a maximum takes alone."""
    between: float
    """One block of a sum over dims between others."""
    gather: float
    """One element of a concatenation or of a gather of rows."""
    picked: float
    """One float32 number that is gathered on its own."""
    row: float
    """One run of several neighbours, or wider number, that is gathered, looked up or concatenated."""
    missed: float
    """One row that is looked up in a table that no cache holds."""
    indexed: float
    """One element that is selected by a tensor in brackets."""
    streamed: float
    """One element written beyond what a cache holds."""
    run: float
    """One run of neighbours that is moved when dims are permuted."""
    moved: float
    """One element that is moved on its own."""
    transposed: float
    """One element of matrices that are transposed."""
    plane: float
    """One matrix of many that are transposed, where several threads share them."""
    moved_alone: bool
    """Whether one thread moves all elements, however many there are."""
    strided_batch: bool
    """Whether a batch of matrices may lie between their rows."""
    packed: bool
    """Whether a constant right operand is packed for many columns, though it has one: a vector belongs on the left."""
    as_they_are: bool
    """Whether a batch of products takes operands as they are: one matrix for all is not repeated, vectors on the right
    of their matrices cost what they would on the left."""
    copied_cuts: bool
    """Whether a slice, or a repetition, is a copy."""
    stacked_apart: bool
    """Whether a stack is a call for each of its parts and one more: a concatenation and a view of it are two."""
    flat_layers: bool
    """Whether layers are quicker over two dims: with more, a bias is a call of its own, and a sum with its layer norm
    becomes a slow one."""
    einsum: float
    """One element that an einsum reads or writes, beyond what its products cost: it brings them into its own order."""
    innermost: float
    """One product of a batch that lies innermost, and is therefore multiplied one by one."""
    fused: float = 1.0
    """What is left of the price of an elementwise call, or a look-up, that its only reader computes in its own loop;
    all of it where each call is made on its own."""
    doubt: float = 1.0
    """How many times cheaper than the model unchanged a rewritten program must seem to be chosen: no estimate is sure,
    and nobody may be served slower than before."""
    threads: int = 2
    """Threads that work on one call."""
    grain: float = 10_000.0
    """Work that keeps one thread busy; less is not shared."""

    def shared(self, work: float) -> float:
        """Time of one call's work, on several threads if there is enough of it."""
        return work / min(max(work / self.grain, 1.0), self.threads)

    def product(self, batch: int, rows: int, columns: int, inner: int, packed: bool = False) -> float:
        """Time of `batch` products `[rows, inner] @ [inner, columns]`, without dispatch.

        `packed`: whether the right operand is packed for many columns. Otherwise a vector on the right is as one on
        the left.
        """
        if columns == 1 and not packed and (batch == 1 or self.as_they_are):
            rows, columns = columns, rows
        written = self.product_element * batch * rows * columns
        work = batch * rows * columns * inner
        large = self.multiply_add * self._factor(rows, columns) * work
        if batch == 1:
            return large + written
        if rows * columns * inner >= SMALL:
            return self.matrix * batch + large + written
        vectors = -(-columns // VECTOR)
        each = self.matrix + self.small_multiply_add * rows * inner * vectors * VECTOR
        return batch * (each + (self.ragged * rows if columns % VECTOR else 0.0)) + written

    def element_of(self, function: str) -> float:
        """Time of one element of a transcendental function."""
        return self.function * next((factor for name, factor in self.functions if name == function), 1.0)

    def gathered(self, elements: int, run: int, width: int = 4) -> float:
        """Time to gather `elements` of `width` bytes in runs of `run` neighbours."""
        alone = self.picked if run == 1 and width <= 4 else self.row
        return self.gather * elements + alone * elements / max(run, 1)

    def normalised(self, rows: int, size: int) -> float:
        """Time of a softmax or norm of so many rows of `size` neighbours."""
        return self.norm * rows * size + self.norm_row * rows

    def softmax(self, dims: Sequence[int], dim: int) -> float:
        """Time of a softmax over one dim, counted from the front, of a tensor that lies in the order of its dims."""
        count, size, inner = math.prod(dims), dims[dim], math.prod(dims[dim + 1 :])
        together = self.normalised(count // max(size, 1), size)
        if inner <= 1:
            return max(together, self.short_softmax * count) if size < VECTOR else together
        if self.swapped_softmax:
            matrices = inner == max(dims[dim + 1 :])  # one dim lies behind, so each is transposed
            planes = math.prod(dims[:dim]) if matrices else 0
            return together + 2 * self.move(count, 1, planes)
        ragged = inner % VECTOR
        return count / inner * (self.norm * (inner - ragged) + self.ragged_softmax * ragged)

    def _factor(self, rows: int, columns: int) -> float:
        narrow = next((factor for width, factor in self.narrow if columns < width), 1.0)
        short = next((factor for width, factor in self.short if rows < width), 1.0)
        return max(narrow, short)

    def move(self, elements: int, run: int, planes: int = 0) -> float:
        """Time of a copy of `elements` into another order, in runs of `run` that stay together.

        `planes`: the number of matrices of which the copy is the transposition, 0 if it is none.
        """
        if planes and run == 1:
            shared = planes if planes > 1 and self.threads > 1 else 0
            return self.transposed * elements + self.plane * shared
        moved = min(self.moved * elements, self.run * elements / run) + self.gather * elements
        return moved * (self.threads if self.moved_alone else 1)


SMALL = 200_000
"""Multiply-adds of a matrix product that is small enough to be slow in a batch."""

CACHED = 1_000_000
"""Elements of a tensor that a cache holds."""

VECTOR = 16
"""Numbers in float32 that one instruction multiplies."""


def to_json(profile: Profile) -> dict[str, Any]:
    """A profile as plain data."""
    return asdict(profile)


def from_json(data: Any) -> Profile:
    """The profile that `to_json` describes. Raises FormatError where it does not."""
    expected = {field.name for field in fields(Profile)}
    if not isinstance(data, dict) or set(data) != expected:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise FormatError(
            f"this is no profile of prices.\n  expected: {sorted(expected)}\n  found: {found}\n"
            "  fix: write one with `rankopt calibrate`"
        )
    steps = {name: tuple(map(tuple, data[name])) for name in ("narrow", "short", "functions")}
    return Profile(**{**data, **steps})
