"""Labels: what the interpretation found out about each node of the captured graph.

They are read off the very values that are rewritten, so they cannot disagree with the rewriting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from rankopt.axes import ROW, Group, sizes
from rankopt.expressions import Stage
from rankopt.values import Cat, Node, Sum, Value, leaves


class Rank(Enum):
    """How a tensor varies over the candidates of a request."""

    PARAMETER = "parameter"
    """Depends on parameters only."""
    RANK2 = "rank-2"
    """The same for all candidates: once per request."""
    MIXED = "mixed"
    """Some of its elements are the same for all candidates."""
    RANK3 = "rank-3"
    """Differs per candidate."""
    OPAQUE = "opaque"
    """Computed as the model wrote it, on tiled rows: nothing is known about it."""


@dataclass(frozen=True, slots=True)
class Label:
    """The rank of a node, the fraction of its elements that are rank-2, and the inputs it depends on."""

    rank: Rank
    shared: float
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rank.value} ({self.shared:.0%} rank-2)" if self.rank is Rank.MIXED else self.rank.value


def opaque_label(inputs: frozenset[str]) -> Label:
    """The label of a tensor that only opaque ops can read."""
    return Label(Rank.OPAQUE, 0.0, tuple(sorted(inputs)))


def label_of(value: Value, *, opaque: bool = False) -> Label:
    """The label of a deferred value."""
    nodes = list(leaves(value.node))
    tensors = [operand.tensor for node in nodes for term in node.terms for operand in term.operands]
    inputs = tuple(sorted(frozenset[str]().union(*(tensor.inputs for tensor in tensors))))
    if opaque:
        return Label(Rank.OPAQUE, 0.0, inputs)
    shared = shared_fraction(value.node)
    if all(tensor.stage is Stage.WEIGHT for tensor in tensors):
        return Label(Rank.PARAMETER, 1.0, inputs)
    if shared == 1.0:
        return Label(Rank.RANK2, 1.0, inputs)
    return Label(Rank.MIXED if shared else Rank.RANK3, shared, inputs)


def sum_label(x: Label, y: Label) -> Label:
    """The label of a sum of two values of one shape, of which at least as much is rank-3 as of either."""
    order = (Rank.PARAMETER, Rank.RANK2, Rank.MIXED, Rank.RANK3, Rank.OPAQUE)
    return Label(max(x.rank, y.rank, key=order.index), min(x.shared, y.shared), tuple(sorted({*x.inputs, *y.inputs})))


def shared_fraction(node: Node) -> float:
    """The fraction of elements that do not depend on the candidates."""
    if isinstance(node, Cat):
        return sum(len(p.positions) * shared_fraction(p.node) for p in node.parts) / node.axis.size
    return 0.0 if _depends_on_candidates(node) else 1.0


def _depends_on_candidates(node: Sum) -> bool:
    """Whether a target input went into it; the mean of all rows has no row axis, and is not rank-2."""
    return any(operand.tensor.stage is Stage.CANDIDATE for term in node.terms for operand in term.operands)


def shared_mask(value: Value) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """For each element of one row of `value` (the row axis has size one): is it rank-2?"""
    axes = tuple(axis for axis in value.axes if axis is not ROW)
    mask = _mask(value.node, axes)
    shape = [int(np.prod([axis.size for axis in group if axis is not ROW])) for group in value.groups]
    return mask.reshape(shape)


def _mask(node: Node, axes: Group) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    if not isinstance(node, Cat):
        return np.full(sizes(axes), not _depends_on_candidates(node))
    if node.axis not in axes:
        raise AssertionError("a value varies along an axis that its dims do not have")
    at = axes.index(node.axis)
    mask = np.empty(sizes(axes), dtype=np.bool_)
    for part in node.parts:
        inner = _mask(part.node, (*axes[:at], *part.axes, *axes[at + 1 :]))
        shape = [*sizes(axes[:at]), len(part.positions), *sizes(axes[at + 1 :])]
        mask[(slice(None),) * at + (part.positions,)] = inner.reshape(shape)
    return mask
