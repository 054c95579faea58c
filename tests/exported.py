"""Small rankers to export: a packed input with a scalar and nested outputs, and three of the zoo."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.ranker import Ranker
from rankopt.requests import Request, draw_request, tile
from rankopt.zoo.fields import Field
from rankopt.zoo.registry import ENTRIES

ORDER = ("user", "item", "hour", "price")
CONTEXT = ["features.user", "features.hour"]
IDS = 30


class Packed(nn.Module):
    """A packed input, an input that no score depends on, a scalar, a name that ONNX cannot have, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(IDS, 6)
        self.items = nn.Embedding(IDS, 6)
        self.hidden = nn.Linear(6 + 6 + 5, 24)
        self.output = nn.Linear(24, 1)

    def forward(self, features: dict[str, Tensor], x: Tensor, bias: Tensor, power: float = 1.0) -> Any:
        rows = torch.cat([self.users(features["user:id"]), x, self.items(features["item"])], dim=1)
        hidden = torch.relu(self.hidden(rows))
        return {"score": self.output(hidden).squeeze(1) * power + bias, "top": [hidden], "model": "packed"}


def packed_rows(rows: int = 20) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(2)
    names = ("user:id", "item", "unused")
    features = {name: torch.randint(IDS, (rows,), generator=draw) for name in names}
    return {"features": features, "x": torch.randn(rows, 5, generator=draw), "bias": torch.tensor(0.25), "power": 2.0}


@cache
def packed() -> Ranker:
    torch.manual_seed(0)
    return rankopt.optimize(
        Packed().eval(), ["features.user:id", "x[:, [0, 2, 3]]"], example_inputs=packed_rows(), backend="onnxruntime"
    )


@cache
def from_zoo(name: str) -> Ranker:
    torch.manual_seed(0)
    entry = ENTRIES[name]
    model = entry.build([Field(field, IDS) for field in ORDER], entry.config).eval()
    for table in model.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight, std=0.5)
    rows = {"features": {name: torch.randint(0, IDS, (20,)) for name in ORDER}}
    return rankopt.optimize(model, CONTEXT, example_inputs=rows, backend="onnxruntime")


def ranker_of(name: str) -> Ranker:
    return packed() if name == "packed" else from_zoo(name)


def request_of(ranker: Ranker, candidates: int) -> Request:
    return draw_request(
        ranker.interface.roles, ranker.examples, candidates, torch.Generator().manual_seed(candidates + 5)
    )


def original_scores(ranker: Ranker, request: Request) -> list[Tensor]:
    """The model's own, on tiled rows."""
    assert ranker.origin is not None
    return ranker.origin[0].run(tile(ranker.interface.roles, request))


@pytest.fixture(scope="module")
def saved_packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "ranker.pt2"
    packed().save(path)
    return path
