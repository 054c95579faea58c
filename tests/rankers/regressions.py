"""Rankers that must stay right, each with the turn at which it is checked: as the fuzzer prints them when shrunk."""

from __future__ import annotations

import torch
from rankers.model import Description, Input, Step

REGRESSIONS: dict[str, tuple[int, Description]] = {
    "attention over a history": (
        0,
        Description(
            inputs=(
                Input("vectors", "context", 3),
                Input("mask", "context", 3),
                Input("dense", "target", 4),
            ),
            steps=(
                Step("din", (0, 1, 2), {"form": "where", "softmax": True}),
                Step("joined", (3, 2)),
                Step("tower", (4,), {"layers": 1, "norm": "batch", "act": "dice"}),
            ),
        ),
    ),
    "pairs of packed fields": (
        0,
        Description(
            inputs=(Input("packed ids", "packed", 4, (0, 2)),),
            steps=(
                Step("tables", (0,), {"form": "stack"}),
                Step("fm", (1,), {"form": "masked"}),
                Step("cross", (2,), {"form": "linear", "depth": 2}),
            ),
            output="dict",
        ),
    ),
    "numbers that grow with the request": (
        61,
        Description(
            inputs=(Input("float ids", "context", 3), Input("lengths", "target")),
            steps=(
                Step("cross", (0,), {"form": "mm", "depth": 3}),
                Step("cross", (2,), {"form": "linear", "depth": 1}),
                Step("stacked", (0, 2), {"dim": 1}),
            ),
            output="dict",
        ),
    ),
    "a number of rows that torch fixes": (
        165,
        Description(
            inputs=(Input("dense", "packed", 6, (1, 2, 3)),),
            steps=(
                Step("gru", (0, 0)),
                Step("stacked", (1, 0), {"dim": -1}),
                Step("fm", (2,), {"form": "masked"}),
            ),
        ),
    ),
    "a number of rows that torch fixes behind a mask": (
        8000213,
        Description(
            inputs=(Input("dense", "target", 1), Input("vectors", "target", 1)),
            steps=(
                Step("cross", (0,), {"form": "column", "depth": 1}),
                Step("fm", (1,), {"form": "masked"}),
                Step("cross", (3,), {"form": "linear", "depth": 1}),
                Step("gru", (4, 4)),
            ),
            dtype=torch.float64,
        ),
    ),
    "a head that meets what two maps share": (
        1312,
        Description(
            inputs=(Input("vectors", "target", 2),),
            steps=(
                Step("multihead", (0,), {"form": "first"}),
                Step("cin", (1,), {"form": "conv", "depth": 2}),
            ),
            dtype=torch.float64,
        ),
    ),
    "a head that meets what two maps share of the context": (
        1206,
        Description(
            inputs=(Input("dense", "target", 1), Input("vectors", "context", 3)),
            steps=(
                Step("multihead", (1,), {"form": "first"}),
                Step("cin", (2,), {"form": "conv", "depth": 2}),
            ),
            dtype=torch.float64,
        ),
    ),
}
