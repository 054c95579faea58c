"""A file for many requests: the graph of one request in it, calls without anything, and what torch cannot follow."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.errors import ExportError
from rankopt.ranker import Ranker


class Attending(nn.Module):
    """Rows meet a matrix of their request, which the model repeats for each: what a ragged call has to pad for."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(30, 32)
        self.keys = nn.Linear(32, 32)
        self.top = nn.Linear(20, 1)

    def forward(self, history: Tensor, item: Tensor) -> Tensor:
        keys = torch.tanh(self.keys(history))  # [R, 20, 32]
        return self.top(torch.relu(keys @ self.items(item).unsqueeze(2)).squeeze(2)).squeeze(1)


@cache
def attending() -> Ranker:
    torch.manual_seed(0)
    rows = {"history": torch.randn(20, 20, 32), "item": torch.randint(30, (20,))}
    return rankopt.optimize(Attending().eval(), ["history"], example_inputs=rows, candidates=100_000)


def branches_of(path: Path) -> dict[str, list[onnx.NodeProto]]:
    """The nodes for one request, and those for many."""
    (choice,) = [node for node in onnx.load(path).graph.node if node.op_type == "If"]
    return {branch.name: list(branch.g.node) for branch in choice.attribute}


def test_one_request_runs_the_graph_of_one(tmp_path: Path) -> None:
    path = tmp_path / "dense.onnx"
    attending().export(path, many="dense")
    attending().export(tmp_path / "single.onnx")
    single = [node.op_type for node in onnx.load(tmp_path / "single.onnx").graph.node]
    assert [node.op_type for node in branches_of(path)["then_branch"]] == ["Squeeze", *single, "Unsqueeze"]
    assert path.stat().st_size < (tmp_path / "single.onnx").stat().st_size + 20_000  # the weights are there once
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for requests, candidates in ((1, 4), (3, 4), (1, 0), (2, 0), (0, 4)):
        history = torch.randn(requests, 20, 32)
        item = torch.randint(30, (requests, candidates))
        (scores,) = session.run(None, {"history": history.numpy(), "item": item.numpy()})
        assert scores.shape == (requests, candidates)
        for b in range(requests if candidates else 0):
            expected = attending()({"history": history[b : b + 1]}, {"item": item[b]})
            torch.testing.assert_close(torch.from_numpy(scores[b]), expected, rtol=1e-4, atol=1e-5)


def test_calls_without_requests_or_rows(tmp_path: Path) -> None:
    """And no state is repeated for a product: a matrix of a request is multiplied once, for all of its rows."""
    ranker = attending()
    ragged = ranker.many.plan.many.ragged
    assert not isinstance(ragged, str)
    assert ragged.pads
    assert "request_of)" not in ragged.functional.code.split("def forward")[1].split("\n", 1)[1]
    ranker.export(tmp_path / "many.pt2", many="request_of")
    module = torch.export.load(tmp_path / "many.pt2").module()
    for owner in ([0, 0], [2, 0, 2, 2, 0], [], [1]):
        for requests in (max(owner, default=-1) + 1, max(owner, default=-1) + 3):
            history, item = torch.randn(requests, 20, 32), torch.randint(30, (len(owner),))
            with torch.no_grad():
                (scores,) = module(history, item, torch.tensor(owner, dtype=torch.int64))
            assert scores.shape == (len(owner),)
            for row, b in enumerate(owner):
                expected = ranker({"history": history[b : b + 1]}, {"item": item[row : row + 1]})
                torch.testing.assert_close(scores[row : row + 1], expected, rtol=1e-4, atol=1e-5)


def test_what_torch_cannot_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("data-dependent mystery")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(ExportError, match=r"cannot be written: data-dependent mystery(.|\n)*fix: .*one request"):
        attending().export(tmp_path / "fast.pt2", many="dense")
    assert list(tmp_path.iterdir()) == []
