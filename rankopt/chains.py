"""Chains of additions: `x_1 + x_2 + ... + x_n`, as a loop in a model leaves them.

Added one by one, a sum of hundreds of terms would be brought into normal form hundreds of times. Its addends are
gathered instead, and summed as one stacked tensor, which a law can look into as a whole.
"""

from __future__ import annotations

import torch
from torch import fx

from rankopt.sizes import symbolic_size

aten = torch.ops.aten

LEAST = 7
"""Addends of a chain; shorter sums stay pending term by term."""


def chain_links(graph: fx.Graph, rows: object) -> dict[fx.Node, bool]:
    """The additions that belong to a chain of `LEAST` addends or more, and whether each is the last of its chain.

    All but the last are read by the next one alone, and all addends have the shape and the type of the sum.
    """
    links: dict[fx.Node, bool] = {}
    lengths: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if not _is_addition(node, rows):
            continue
        previous = _previous(node, lengths)
        lengths[node] = lengths[previous] + 1 if previous is not None else 2
    for node in reversed(graph.nodes):
        if node in links or lengths.get(node, 0) < LEAST:
            continue
        links[node] = True
        link = _previous(node, lengths)
        while link is not None:
            links[link] = False
            link = _previous(link, lengths)
    return links


def _previous(node: fx.Node, links: dict[fx.Node, int]) -> fx.Node | None:
    """The link before an addition: its first operand, if nothing else reads that."""
    first = node.args[0]
    return first if isinstance(first, fx.Node) and first in links and len(first.users) == 1 else None


def _is_addition(node: fx.Node, rows: object) -> bool:
    if node.target is not aten.add.Tensor or node.kwargs:
        return False
    x, y = node.args
    if not isinstance(x, fx.Node) or not isinstance(y, fx.Node) or x is y:
        return False
    kinds = [_kind(operand, rows) for operand in (x, y, node)]
    return kinds[0] is not None and kinds[0] == kinds[1] == kinds[2]


def _kind(node: fx.Node, rows: object) -> object:
    """Shape and type of a floating-point tensor whose sizes are known; else None."""
    value = node.meta.get("val")
    dtype = getattr(value, "dtype", None)
    if value is None or dtype is None or not dtype.is_floating_point:
        return None
    sizes = tuple(symbolic_size(size, rows) for size in value.shape)
    return None if None in sizes else (sizes, dtype)
