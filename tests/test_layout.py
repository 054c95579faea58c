"""Layouts: how a product lies where its readers can say what they would like."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankopt.axes import ROW, Axis
from rankopt.backends import EAGER, ONNX_RUNTIME
from rankopt.layout import Layout, Layouts, Written
from rankopt.pipeline import capture_with_roles
from rankopt.plan import alternatives
from rankopt.program import aten

QUERIES, KEYS = Axis(1, 26), Axis(2, 26)
SCORES = (ROW, QUERIES, KEYS)


def _scores() -> Layouts:
    """Queries by keys, a batch of one matrix per candidate, as a product wrote it; its number is 0, its tensor 7."""
    layouts = Layouts()
    written = Written(0, (0, 1, 2), batch=1, rows=1, columns=1, may_permute=False, may_transpose=True)
    layouts.wrote(7, written)
    return layouts


def test_a_softmax_wants_its_dim_to_be_the_last() -> None:
    for profile in (EAGER, ONNX_RUNTIME):
        along_keys, along_queries = _scores(), _scores()
        along_keys.normalise(7, SCORES, KEYS, rows=512)
        along_queries.normalise(7, SCORES, QUERIES, rows=512)
        assert along_keys.better(profile) == {}
        assert along_queries.better(profile) == {0: Layout(True, (0,), (0,))}


def test_a_copy_that_costs_more_outweighs_it() -> None:
    layouts = _scores()
    layouts.normalise(7, SCORES, QUERIES, rows=512)
    for _ in range(3):
        layouts.read(7, SCORES, ((), (ROW,), (QUERIES, KEYS)), rows=512)
    assert layouts.better(EAGER) == {}


class Attention(nn.Module):
    """Two layers of attention, of which the second sees the candidate in every field."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(3)) for _ in range(2))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([context, target], dim=1)
        for maps in self.maps:
            q, k, v = (layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in maps)
            x = (x + (torch.softmax(q @ k.transpose(2, 3), -1) @ v).transpose(1, 2).flatten(2)).relu()
        return x.flatten(1).sum(1)


def test_attention_is_normalised_along_the_last_dim() -> None:
    rows = {"context": torch.randn(3, 20, 16), "target": torch.randn(3, 6, 16)}
    captured, roles = capture_with_roles(Attention().eval(), ["context"], None, rows)
    best = alternatives(captured, roles, 512, profile=EAGER)[0]
    softmaxes = [expr for expr in best.exprs if expr.target is aten.softmax.int]
    assert best.policy.rewrites
    assert [(len(expr.dims), expr.args[1]) for expr in softmaxes] == [(4, 3), (4, 3)]
