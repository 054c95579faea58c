"""A model's layers keep their names in the ranker, whatever a ranker calls its own attributes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.ranker import Ranker
from rankopt.weights import WeightHolder

OWN = {"report", "stages", "interface", "examples", "fixed", "model", "_sources", "_version", "_origin", "_eager"}
USED = {*vars(Ranker), *vars(WeightHolder), *OWN}
NAMES = sorted(name for name in USED if not name.startswith("__") and name not in vars(nn.Module))


class Named(nn.Module):
    """Layers, parameters or buffers with names that a ranker uses, too."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        for name in NAMES:
            if kind == "layer":
                self.add_module(name, nn.Linear(5, 5, bias=False))
            elif kind == "parameter":
                self.register_parameter(name, nn.Parameter(torch.randn(5, 5)))
            else:
                self.register_buffer(name, torch.randn(5, 5))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        x = torch.cat([user, item], dim=1)
        weights = [*self.parameters(), *self.buffers()]
        return torch.relu(nn.functional.linear(x, torch.stack(weights).sum(0))).sum(1)


@pytest.mark.parametrize("kind", ["layer", "parameter", "buffer"])
def test_a_layer_may_have_any_name(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Named(kind).eval()
    ranker = rankopt.optimize(model, {"user": torch.ones(1, 2)}, {"item": torch.randn(6, 3)})
    assert ranker.report is not None
    assert set(ranker.weights()) == set(ranker.state_dict()) == set(model.state_dict())
    context, target = {"user": torch.randn(1, 2)}, {"item": torch.randn(4, 3)}
    ranker.save(tmp_path / "ranker.pt2")
    loaded = rankopt.load(tmp_path / "ranker.pt2")
    with torch.no_grad():
        torch.testing.assert_close(ranker(context, target), model(context["user"].expand(4, 2), target["item"]))
        torch.testing.assert_close(loaded(context, target), ranker(context, target), rtol=0.0, atol=0.0)
        ranker.load_original_state_dict({name: 2 * tensor for name, tensor in loaded.state_dict().items()})
        torch.testing.assert_close(ranker(context, target), model(context["user"].expand(4, 2), target["item"]))
