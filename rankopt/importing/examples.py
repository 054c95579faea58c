"""Example rows of an ONNX model: a file has none, so they are drawn from what it says of its inputs.

An id must stay in the table that it looks up. Where an input reaches the index of a lookup by data movement alone, the
size of the table bounds it; an integer of which nothing is known is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rankopt.errors import InputError
from rankopt.importing.operators import Node
from rankopt.importing.reading import Declared, Graph

ROWS = 64
"""Rows that are drawn."""

_MOVES = frozenset(
    {
        *("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators whose results are elements of their first input (of all, for Concat)."""


def example_rows(graph: Graph) -> dict[str, Tensor]:
    """Rows by input name. Raises InputError where the file does not say enough about an input."""
    bounds = id_bounds(graph)
    generator = torch.Generator().manual_seed(0)
    return {item.name: _rows(graph, item, bounds.get(item.name), generator) for item in graph.inputs}


def id_bounds(graph: Graph) -> dict[str, int]:
    """For inputs that are looked up, the number of rows of the smallest table that they may reach."""
    origins: dict[str, set[str]] = {item.name: {item.name} for item in graph.inputs}
    bounds: dict[str, int] = {}
    for node in graph.nodes:
        rows = _table_rows(node, graph.tensors)
        if rows is not None:
            bounds.update({name: min(rows, bounds.get(name, rows)) for name in origins.get(node.inputs[1], ())})
        elif node.op in _MOVES:
            read = node.inputs if node.op == "Concat" else node.inputs[:1]
            found = set[str]().union(*(origins.get(name, set()) for name in read))
            origins.update(dict.fromkeys(node.outputs, found))
    return bounds


def _table_rows(node: Node, tensors: Mapping[str, Tensor]) -> int | None:
    """The number of rows of the table in which a node looks something up by its second input."""
    if node.op not in ("Gather", "GatherElements") or node.inputs[0] not in tensors:
        return None
    return int(tensors[node.inputs[0]].shape[node.attribute("axis", 0)])


def _rows(graph: Graph, item: Declared, bound: int | None, generator: torch.Generator) -> Tensor:
    if item.shape and isinstance(item.shape[0], int):
        raise InputError(
            f"{graph.source}: the input '{item.name}' has {item.shape[0]} rows and no others.\n"
            "  expected: a first dim that is free, in every input\n"
            "  fix: export the model with a dynamic batch dimension"
        )
    if not all(isinstance(size, int) for size in item.shape[1:]):
        sizes = ", ".join(str(size) for size in item.shape)
        raise InputError(
            f"{graph.source}: the input '{item.name}' has more than one free dim, [{sizes}].\n"
            "  fix: give example rows, of the length that will be served (--example rows.npz)"
        )
    shape = [ROWS, *item.shape[1:]] if item.shape else []
    if bound is not None or not (item.dtype.is_floating_point or item.dtype is torch.bool):
        return torch.randint(max(bound or 1, 1), shape, generator=generator).to(item.dtype)  # type: ignore[arg-type]
    values = torch.rand(shape, generator=generator)  # type: ignore[arg-type]
    return values < 0.5 if item.dtype is torch.bool else values.to(item.dtype)
