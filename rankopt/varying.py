"""Factors of an unrolled loop: what stands at one place of all its members, and varies from one to the next.

    cat(x_1 y_1, ..., x_n y_n)

has two of them, x and y. The x_i may be places of one tensor, a few different tensors, or all the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rankopt import operands as ops
from rankopt.axes import Axis, Group
from rankopt.evaluate import evaluate, join
from rankopt.expressions import Expr, Stage
from rankopt.operands import Index, Operand
from rankopt.program import aten
from rankopt.values import Cat, Part, Term, leaf
from rankopt.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Varying:
    """A factor of all members: for member k, `variants[choices[k]]`.

    Where the variants are places of one tensor it is `source[choices[k]]`, along the axis `axis`, and no variants.
    """

    stage: Stage
    """When all of it can be computed."""
    choices: Index
    variants: tuple[Operand, ...] = ()
    source: Operand | None = None
    axis: Axis | None = None

    @property
    def varies(self) -> bool:
        """Whether the members differ in it."""
        return bool((self.choices != self.choices[0]).any())

    @property
    def axes(self) -> Group:
        """The axes of one member's."""
        if self.source is None:
            return self.variants[0].axes
        return tuple(axis for axis in self.source.axes if axis is not self.axis)

    def of(self, members: Index) -> Varying:
        """The factor of some of the members."""
        return replace(self, choices=self.choices[members])


def _constant(operand: Operand, count: int) -> Varying:
    """The factor of `count` members that all have the same operand."""
    return Varying(operand.tensor.stage, np.zeros(count, dtype=np.int64), (operand,))


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor as one place of a dim of another."""

    base: Expr
    dim: int
    place: int


def _place(w: Workspace, tensor: Expr) -> _Place | None:
    """`x[:, i]`; an aligned range of a dim, `x[:, i * d : (i + 1) * d]`, is place i of `x.unflatten(1, (-1, d))`."""
    if tensor.target is aten.select.int:
        base, dim, place = tensor.args
        size = base.dims[dim]
        if not isinstance(size, int) or not isinstance(place, int):
            return None
        outer = _place(w, base) if base.target is aten.select.int else None
        if outer is None or outer.dim != dim:
            return _Place(base, dim, place % size)
        dims = outer.base.dims  # x[:, i, j] is one place of x.flatten(1, 2)
        count = dims[dim]
        assert isinstance(count, int)
        merged = w.program.view(outer.base, (*dims[:dim], count * size, *dims[dim + 2 :]))
        return _Place(merged, dim, outer.place * size + place % size)
    if tensor.target is not aten.slice.Tensor or len(tensor.args) != 4:
        return None
    base, dim, start, end = tensor.args
    size, length = base.dims[dim], tensor.dims[dim]
    if not isinstance(size, int) or not isinstance(length, int) or end - start != length:
        return None
    if size % length or start % length:
        return None
    shape = (*base.dims[:dim], size // length, length, *base.dims[dim + 1 :])
    return _Place(w.program.view(base, shape), dim, start // length)


def side_by_side(w: Workspace, operands: Sequence[Operand]) -> Varying:
    """The factor of members that are parts, whose axes have common names."""
    numbers: dict[int, int] = {}
    choices = np.array([numbers.setdefault(o.tensor.serial, len(numbers)) for o in operands], dtype=np.int64)
    variants = tuple({o.tensor.serial: o for o in operands}.values())
    if len(variants) == 1:
        return _constant(variants[0], len(operands))
    apart = Varying(max(variant.tensor.stage for variant in variants), choices, variants)
    places = [_place(w, variant.tensor) for variant in variants]
    first = places[0]
    if first is None or any(p is None or (p.base, p.dim) != (first.base, first.dim) for p in places):
        return apart
    size = first.base.dims[first.dim]
    assert isinstance(size, int)
    axis, axes = w.axes.fresh(size), variants[0].axes
    source = Operand(first.base, (*axes[: first.dim], axis, *axes[first.dim :]))
    index = np.array([p.place for p in places if p is not None], dtype=np.int64)
    return Varying(first.base.stage, index[choices], (), source, axis)


def along(w: Workspace, operand: Operand, axis: Axis) -> Varying:
    """The factor of members that are the places of an axis: of the tensor that was gathered along it, if one was."""
    if axis not in operand.axes:
        return _constant(operand, axis.size)
    dim = operand.axes.index(axis)
    base, places = w.program.places(operand.tensor, dim)
    if base is operand.tensor:
        return Varying(base.stage, places, (), operand, axis)
    size = base.dims[dim]
    assert isinstance(size, int)
    source = w.axes.fresh(size)
    axes = (*operand.axes[:dim], source, *operand.axes[dim + 1 :])
    return Varying(base.stage, places, (), Operand(base, axes), source)


def at(w: Workspace, factor: Varying, members: Index, axes: Group) -> Operand:
    """The factor of `members`, an array shaped like `axes`: it has those of the axes along which it varies."""
    choices = factor.choices[members]
    dims = [dim for dim in range(choices.ndim) if (choices != choices.take([0], axis=dim)).any()]
    choices = choices[tuple(slice(None) if dim in dims else 0 for dim in range(choices.ndim))]
    new = tuple(axes[dim] for dim in dims)
    if factor.source is not None and factor.axis is not None:
        return ops.pick(w, factor.source, (factor.axis,), choices, new)
    used, inverse = np.unique(choices, return_inverse=True)
    if len(used) == 1:
        return factor.variants[int(used[0])]
    if len(used) == choices.size:  # each once: put side by side in their final order
        used, inverse = choices.reshape(-1), np.arange(choices.size)
    axis = w.axes.fresh(len(used))
    parts = tuple(
        Part(np.array([i], dtype=np.int64), (), leaf(factor.variants[choice])) for i, choice in enumerate(used.tolist())
    )
    joined, _ = join(w, Cat(axis, parts), axis)
    return ops.pick(w, joined, (axis,), inverse.reshape(choices.shape).astype(np.int64), new)


def shared(
    w: Workspace, factors: Sequence[Varying], summed: frozenset[Axis]
) -> tuple[Sequence[Varying], frozenset[Axis]]:
    """Products that several members share are multiplied once: `x_i W_i` is the same in all pairs (i, j).

    Only two factors that alone have a summed axis: whatever else they meet, they are multiplied with each other first,
    unless a target field meets context, which is better folded into what comes next.
    """
    if {Stage.CONTEXT, Stage.CANDIDATE} <= {factor.stage for factor in factors}:
        return factors, summed
    for axis in sorted(summed, key=lambda axis: axis.serial):
        inner = [factor for factor in factors if axis in factor.axes]
        stage = max(factor.stage for factor in inner)
        choices = np.stack([factor.choices for factor in inner])
        _, first, places = np.unique(choices, axis=1, return_index=True, return_inverse=True)
        if len(inner) != 2 or stage is Stage.WEIGHT or len(first) == choices.shape[1]:
            continue
        own = w.axes.fresh(len(first))
        product = evaluate(w, Term(tuple(at(w, f, first, (own,)) for f in inner), frozenset((axis,))))
        variants = () if own in product.axes else (product,)
        source = (product, own) if own in product.axes else (None, None)
        joined = Varying(stage, places.reshape(-1).astype(np.int64), variants, *source)
        factors = [*(factor for factor in factors if axis not in factor.axes), joined]
        summed -= {axis}
    return factors, summed
