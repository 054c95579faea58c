"""Contraction order: the optimiser.

A product of several operands can be evaluated pair by pair in any order, and an operand without rows costs once per
request instead of once per candidate. Choosing the order by cost yields, with no further rule, what hand-written
rewrites list one by one: the affine fold of a second cross layer, `W diag(c) V` composed once per request, the
context half of a CIN map, FM pairs folded into the next linear layer.

The search is dynamic programming over subsets (as in opt_einsum's `dp`): exact for the few operands a term may have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rankopt import operands as ops
from rankopt.axes import ROW, Axis, Group, volume
from rankopt.expressions import Stage
from rankopt.layout import matrix_form
from rankopt.operands import Operand
from rankopt.prices import CACHED
from rankopt.workspace import Workspace

Tree = int | tuple["Tree", "Tree"]
"""An operand by its number, or the product of two trees."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """An operand of which only axes and stage matter: enough to price it."""

    axes: Group
    stage: Stage

    def volume(self, rows: int) -> int:
        """Number of elements at `rows` candidates."""
        return volume(self.axes, rows)


def sketch(operand: Operand) -> Sketch:
    """What pricing needs to know of an operand."""
    return Sketch(operand.axes, operand.tensor.stage)


@dataclass(frozen=True, slots=True)
class Order:
    """A plan: the estimated time in nanoseconds, and which operands to multiply first."""

    cost: float
    tree: Tree

    def __str__(self) -> str:
        return f"{_show(self.tree)}  ~{self.cost / 1e3:.1f} us"


def _show(tree: Tree) -> str:
    return str(tree) if isinstance(tree, int) else f"({_show(tree[0])} {_show(tree[1])})"


@dataclass(frozen=True, slots=True)
class Roles:
    """What the axes of two operands do in their product."""

    batch: Group
    inner: Group
    left: Group
    right: Group


def roles(x: Group, y: Group, kept: Collection[Axis]) -> Roles:
    """Axes of both that stay, of both that are summed, of `x` alone, of `y` alone (those that stay)."""
    return Roles(
        batch=tuple(axis for axis in x if axis in y and axis in kept),
        inner=tuple(axis for axis in x if axis in y and axis not in kept),
        left=tuple(axis for axis in x if axis not in y and axis in kept),
        right=tuple(axis for axis in y if axis not in x and axis in kept),
    )


# ------------------------------------------------------------------------------------------------------ pricing


def pair_cost(w: Workspace, x: Sketch, y: Sketch, kept: Collection[Axis]) -> float:
    """Estimated nanoseconds of one product. Products of weights are free, but must not outgrow their factors."""
    r = roles(x.axes, y.axes, kept)
    n = w.candidates
    batch, inner, left, right = (volume(group, n) for group in (r.batch, r.inner, r.left, r.right))
    written = batch * left * right
    if max(x.stage, y.stage) is Stage.WEIGHT:
        grows = written > 2 * (x.volume(n) + y.volume(n))
        return w.profile.gather * written * 4 if grows else 0.0
    if not r.inner or not (r.left or r.right):
        return w.profile.call + w.profile.element * written * inner + w.profile.broadcast * _runs(w, x.axes, y.axes)
    if (summed := elementwise_cost(w, x.axes, y.axes, r)) < product_cost(w, r):
        return summed
    apart = r.batch and ROW not in r.batch and ROW in (*r.left, *r.right)
    moved_back = 0.5 * w.profile.move(written, max(right, 1)) if apart else 0.0  # sooner or later
    return w.profile.call + w.profile.product(batch, left, right, inner) + _copy_cost(w, x, y, r) + moved_back


def product_cost(w: Workspace, r: Roles) -> float:
    """Price of a matrix product, without copies."""
    batch, inner, left, right = (volume(group, w.candidates) for group in (r.batch, r.inner, r.left, r.right))
    return w.profile.call + w.profile.product(batch, left, right, inner)


def elementwise_cost(w: Workspace, x: Group, y: Group, r: Roles) -> float:
    """Price of a batch of matrix-vector products as an elementwise product and a sum, where that may be cheaper.

    A matrix in a batch has its own set-up, whatever its size.
    """
    if not r.batch or (r.left and r.right):
        return math.inf
    elements = volume((*r.batch, *r.inner, *r.left, *r.right), w.candidates)
    each = w.profile.element + w.profile.read + w.profile.reduced / max(volume(r.inner, w.candidates), 1)
    streamed = w.profile.streamed * max(elements - CACHED, 0)
    return 2 * w.profile.call + each * elements + streamed + w.profile.broadcast * _runs(w, x, y)


def _runs(w: Workspace, x: Group, y: Group) -> float:
    """How many runs of neighbours an elementwise product has, along which each factor is whole or repeated."""
    order = ops.merge_axes([x, y])
    kinds = [(axis in x, axis in y) for axis in order]
    first = len(order)
    while first and kinds[first - 1] == kinds[-1]:
        first -= 1
    return float(volume(order[:first], w.candidates)) if first else 0.0


def _copy_cost(w: Workspace, x: Sketch, y: Sketch, r: Roles) -> float:
    """Price of bringing operands into matrix form. Weights are laid out once per model version."""
    cost = 0.0
    for operand, outer in ((x, r.left), (y, r.right)):
        form = matrix_form(operand.axes, r.batch, outer, r.inner)
        scattered = form.inside and not w.profile.strided_batch
        if operand.stage is not Stage.WEIGHT and (form.copied or scattered):
            run = volume(operand.axes[len(operand.axes) - form.run :], w.candidates)
            cost += w.profile.call + w.profile.move(operand.volume(w.candidates), run)
    return cost


def order(w: Workspace, sketches: Sequence[Sketch], kept: Collection[Axis]) -> Order:
    """The cheapest way to multiply `sketches` and sum every axis that is not in `kept`."""
    if len(sketches) == 1:
        return Order(0.0, 0)
    if not w.policy.compose:
        return _as_written(w, sketches, kept)
    full = (1 << len(sketches)) - 1
    results = {1 << i: _alone(sketches, i, kept) for i in range(len(sketches))}
    best = {1 << i: Order(0.0, i) for i in range(len(sketches))}
    for subset in sorted(range(1, full + 1), key=int.bit_count):
        if subset in best:
            continue
        needed = _needed(sketches, full & ~subset, kept)
        found = Order(math.inf, -1)
        half = (subset - 1) & subset
        while half > subset ^ half:
            x, y = results[half], results[subset ^ half]
            cost = best[half].cost + best[subset ^ half].cost + pair_cost(w, x, y, needed)
            if cost < found.cost or found.tree == -1:
                found = Order(cost, (best[half].tree, best[subset ^ half].tree))
                results[subset] = _product(x, y, needed)
            half = (half - 1) & subset
        best[subset] = found
    return best[full]


def cost(w: Workspace, sketches: Sequence[Sketch], kept: Collection[Axis]) -> float:
    """Estimated nanoseconds of the cheapest order."""
    return order(w, sketches, kept).cost


def _as_written(w: Workspace, sketches: Sequence[Sketch], kept: Collection[Axis]) -> Order:
    """The operands multiplied from left to right, as the model wrote them."""
    tree, cost, result = 0, 0.0, _alone(sketches, 0, kept)
    merged: Tree = tree
    for i in range(1, len(sketches)):
        rest = sum(1 << j for j in range(i + 1, len(sketches)))
        needed = _needed(sketches, rest, kept)
        other = _alone(sketches, i, kept)
        cost += pair_cost(w, result, other, needed)
        result, merged = _product(result, other, needed), (merged, i)
    return Order(cost, merged)


def _needed(sketches: Sequence[Sketch], others: int, kept: Collection[Axis]) -> set[Axis]:
    """The axes that a partial product must keep: those of the result, and those that other operands still have."""
    return set(kept) | {axis for i, s in enumerate(sketches) if others >> i & 1 for axis in s.axes}


def _alone(sketches: Sequence[Sketch], i: int, kept: Collection[Axis]) -> Sketch:
    """Operand i after the sums that concern it alone."""
    others = ((1 << len(sketches)) - 1) & ~(1 << i)
    needed = _needed(sketches, others, kept)
    return Sketch(tuple(axis for axis in sketches[i].axes if axis in needed), sketches[i].stage)


def _product(x: Sketch, y: Sketch, kept: Collection[Axis]) -> Sketch:
    r = roles(x.axes, y.axes, kept)
    axes = (*r.batch, *r.left, *r.right) if r.inner else ops.merge_axes([x.axes, y.axes])
    return Sketch(axes, max(x.stage, y.stage))
