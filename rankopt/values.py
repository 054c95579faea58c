"""Deferred values: what the interpreter computes with instead of tensors.

    Term  = coefficient * product of operands, summed over some axes        a pending einsum
    Sum   = terms                                                            W [x_c; x_t] has two
    Cat   = parts along one axis, each at its own positions of it            interleaved fields, triangles, slices
    Value = a node (Sum or Cat) and, per dim of the model's tensor, the group of axes that the dim stands for

A node mentions only the axes that it varies along. `pick` is the one structural operation: select, slice, gather by a
constant index, split and merge of dims are all "the elements of these axes at these places, under those axes".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from rankopt.axes import ROW, Axis, Group, Shape, group_size, sizes
from rankopt.operands import Index, Operand
from rankopt.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Term:
    """`coefficient * sum over `summed` of the product of `operands``."""

    operands: tuple[Operand, ...]
    summed: frozenset[Axis] = frozenset()
    coefficient: float = 1.0

    @property
    def axes(self) -> Group:
        """The axes that remain, in order of appearance."""
        seen = dict.fromkeys(axis for operand in self.operands for axis in operand.axes)
        return tuple(axis for axis in seen if axis not in self.summed)

    @property
    def has_rows(self) -> bool:
        """Whether it differs between candidates."""
        return any(operand.has_rows for operand in self.operands)

    @property
    def is_operand(self) -> bool:
        """Whether nothing is pending."""
        return len(self.operands) == 1 and not self.summed and self.coefficient == 1.0


@dataclass(slots=True, eq=False)
class Sum:
    """A sum of terms. `forced` is its value once somebody had it evaluated.

    `known` is its value where there is a cheaper way to it than by its terms, which nobody has to take.
    """

    terms: tuple[Term, ...]
    forced: Operand | None = None
    known: Operand | None = None

    @property
    def axes(self) -> Group:
        """The axes along which it varies."""
        return tuple(dict.fromkeys(axis for term in self.terms for axis in term.axes))

    @property
    def has_rows(self) -> bool:
        """Whether it differs between candidates."""
        return any(term.has_rows for term in self.terms)

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.terms[0].operands[0].dtype

    @property
    def present_terms(self) -> tuple[Term, ...]:
        """Its terms, or its value where that has already been paid for."""
        return (Term((self.forced,)),) if self.forced is not None else self.terms

    @property
    def operand(self) -> Operand | None:
        """Its value, if there is nothing to compute (any more)."""
        if self.forced is not None:
            return self.forced
        return self.terms[0].operands[0] if len(self.terms) == 1 and self.terms[0].is_operand else None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """`node` at `positions` of a concatenation; its own axes `axes`, flattened, run along them."""

    positions: Index
    axes: Group
    node: Node


@dataclass(slots=True, eq=False)
class Cat:
    """A concatenation: the positions of the parts are a partition of the places of `axis`."""

    axis: Axis
    parts: tuple[Part, ...]
    forced: Operand | None = None
    _places: tuple[Index, Index] | None = field(default=None, repr=False)

    @property
    def axes(self) -> Group:
        """The axes along which it varies."""
        inner = (axis for part in self.parts for axis in part.node.axes if axis not in part.axes)
        return tuple(dict.fromkeys((self.axis, *inner)))

    @property
    def has_rows(self) -> bool:
        """Whether any part differs between candidates."""
        return any(part.node.has_rows for part in self.parts)

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.parts[0].node.dtype

    def places(self) -> tuple[Index, Index]:
        """For every place of `axis`: which part owns it, and where in that part it is."""
        if self._places is None:
            owner = np.zeros(self.axis.size, dtype=np.int64)
            local = np.zeros(self.axis.size, dtype=np.int64)
            for number, part in enumerate(self.parts):
                owner[part.positions] = number
                local[part.positions] = np.arange(len(part.positions))
            self._places = owner, local
        return self._places


Node = Sum | Cat


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the model: `groups[d]` are the axes of its dim d. `known` holds constants known when compiling."""

    groups: tuple[Group, ...]
    node: Node
    known: torch.Tensor | None = None

    @property
    def axes(self) -> Group:
        """All axes, in the order of the dims."""
        return tuple(axis for group in self.groups for axis in group)

    @property
    def shape(self) -> Shape:
        """Sizes of the dims."""
        return tuple(group_size(group) for group in self.groups)

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.groups)

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.node.dtype

    def dim(self, dim: int) -> int:
        """`dim` counted from the front."""
        return dim % max(self.ndim, 1)


def leaf(operand: Operand) -> Sum:
    """A node that is one tensor."""
    return Sum((Term((operand,)),))


def leaves(node: Node) -> Iterator[Sum]:
    """The sums of which a node is concatenated."""
    if isinstance(node, Sum):
        yield node
        return
    for part in node.parts:
        yield from leaves(part.node)


def identity(axes: Group) -> Index:
    """The places of `axes` in their own order, shaped like them."""
    shape = sizes(axes)
    return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)


# ------------------------------------------------------------------------------------------------------ renaming


def rename(node: Node, names: Mapping[Axis, Axis]) -> Node:
    """The same node under other axis names. Axes inside parts keep theirs: they are bound there."""
    if not names:
        return node
    forced = node.forced.rename(names) if node.forced is not None else None
    if isinstance(node, Cat):
        parts = tuple(Part(part.positions, part.axes, rename(part.node, names)) for part in node.parts)
        return Cat(names.get(node.axis, node.axis), parts, forced)
    terms = tuple(
        Term(tuple(operand.rename(names) for operand in term.operands), term.summed, term.coefficient)
        for term in node.terms
    )
    return Sum(terms, forced, node.known.rename(names) if node.known is not None else None)


def freshen(w: Workspace, value: Value) -> Value:
    """A copy in which every axis but ROW is new, so that it can meet a value that has the same axes elsewhere."""
    names: dict[Axis, Axis] = {}

    def new(axis: Axis) -> Axis:
        if axis is not ROW and axis not in names:
            names[axis] = w.axes.fresh(axis.size)
        return names.get(axis, axis)

    def copy(node: Node) -> Node:
        forced = copy_operand(node.forced)
        if isinstance(node, Cat):
            parts = (Part(p.positions, tuple(new(axis) for axis in p.axes), copy(p.node)) for p in node.parts)
            return Cat(new(node.axis), tuple(parts), forced)
        return Sum(tuple(copy_term(term) for term in node.terms), forced, copy_operand(node.known))

    def copy_operand(operand: Operand | None) -> Operand | None:
        return operand and Operand(operand.tensor, tuple(new(axis) for axis in operand.axes))

    def copy_term(term: Term) -> Term:
        operands = tuple(Operand(o.tensor, tuple(new(axis) for axis in o.axes)) for o in term.operands)
        return Term(operands, frozenset(new(axis) for axis in term.summed), term.coefficient)

    groups = tuple(tuple(new(axis) for axis in group) for group in value.groups)
    return Value(groups, copy(value.node), value.known)
