"""Symmetry: `<x_i, x_j> = <x_j, x_i>`.

A Gram matrix `X X^T` of a concatenation is a grid of blocks, and the block (target, context) is the transpose of the
block (context, target). A triangle taken from it touches both wherever context and target fields interleave. Sending
every pair to one block leaves that block whole: it is computed once, and often not even gathered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from rankopt.axes import ROW, Axis, Group
from rankopt.operands import Index
from rankopt.values import Cat, Node, Sum, Term

Signature = tuple[object, ...]
Block = tuple[tuple[tuple[str, bytes], ...], Signature]


def canonical_pairs(node: Node, old: Group, index: Index) -> Index:
    """The flat places `index` of the axes `old`, each pair sent to the first of its blocks if `node` is symmetric."""
    if len(old) != 2 or ROW in old or old[0].size != old[1].size or not isinstance(node, Cat) or node.axis not in old:
        return index
    if not is_symmetric(node, old[0], old[1]):
        return index
    first, second = np.unravel_index(index, (old[0].size, old[1].size))
    owner, _ = node.places()
    swap = owner[first] > owner[second]
    return np.asarray(
        np.ravel_multi_index(
            (np.where(swap, second, first), np.where(swap, first, second)), (old[0].size, old[1].size)
        ),
        dtype=np.int64,
    )


def is_symmetric(node: Node, a: Axis, b: Axis) -> bool:
    """Whether exchanging the axes `a` and `b` turns each off-diagonal block into another one, tensor by tensor."""
    straight, crossed = list(_blocks(node, {a: "a", b: "b"})), list(_blocks(node, {a: "b", b: "a"}))
    return None not in straight and sorted(map(repr, straight)) == sorted(map(repr, crossed))


def _blocks(node: Node, names: Mapping[Axis, str], at: tuple[tuple[str, bytes], ...] = ()) -> Iterator[Block | None]:
    """The sums of a grid, each with its positions along the named axes."""
    if isinstance(node, Sum):
        if len(at) != 2 or at[0][1] != at[1][1]:
            yield tuple(sorted(at)), _signature(node, names)
        return
    for part in node.parts:
        if node.axis in names:
            if len(part.axes) > 1:
                yield None
                return
            inner = {**names, **{axis: names[node.axis] for axis in part.axes}}
            yield from _blocks(part.node, inner, (*at, (names[node.axis], part.positions.tobytes())))
        else:
            yield None


def _signature(node: Sum, names: Mapping[Axis, str]) -> Signature:
    if node.forced is not None:
        return (_term_signature(Term((node.forced,)), names),)
    return tuple(sorted((_term_signature(term, names) for term in node.terms), key=repr))


def _term_signature(term: Term, names: Mapping[Axis, str]) -> Signature:
    """A product up to the order of its factors and the names of what it sums."""
    bound: dict[Axis, list[tuple[int, int]]] = {}
    for operand in term.operands:
        for dim, axis in enumerate(operand.axes):
            if axis in term.summed:
                bound.setdefault(axis, []).append((operand.tensor.serial, dim))

    def name(axis: Axis) -> object:
        if axis in names:
            return names[axis]
        return ("sum", *sorted(bound[axis])) if axis in bound else axis.serial

    factors = [(operand.tensor.serial, tuple(name(axis) for axis in operand.axes)) for operand in term.operands]
    return (term.coefficient, tuple(sorted(factors, key=repr)))
