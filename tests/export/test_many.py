"""Files for many requests per call: the scores of the original for every request, whichever way candidates come.

Some models, or each in every way with RANKOPT_SWEEP=1 (`make sweep`).
"""

import json
import os
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from exported import original_scores, packed, ranker_of, request_of
from torch import Tensor

from rankopt.errors import InputError, OutputError
from rankopt.ranker import Ranker
from rankopt.requests import Request

RAGGED = ((3,), (4, 0, 1, 7), (2, 90), (5, 0))
DENSE = ((1,), (6, 6), (3, 3, 3))
FILES = [("packed", "dense"), ("dlrm", "lengths"), ("autoint", "request_of")]
if os.environ.get("RANKOPT_SWEEP"):
    FILES = [
        (name, many) for name in ("packed", "dlrm", "dcnv2", "autoint") for many in ("dense", "lengths", "request_of")
    ]
Run = dict[str, Tensor]


def onnx_run(path: Path, feed: Run) -> list[Tensor]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = session.run(None, {item.name: feed[item.name].numpy() for item in session.get_inputs()})
    return [torch.from_numpy(array) for array in arrays]


def names_of(request: Request) -> tuple[dict[str, str], dict[str, str]]:
    """The names of inputs in a file by their paths: as for one request."""
    both = request.context.keys() & request.target.keys()
    found = []
    for role, inputs in (("context", request.context), ("target", request.target)):
        plain = {path: path.replace(".", "_").replace(":", "_") for path in inputs}
        found.append({path: f"{name}_{role}" if path in both else name for path, name in plain.items()})
    return found[0], found[1]


def call_of(ranker: Ranker, lengths: tuple[int, ...], many: str) -> tuple[Run, Run, list[Tensor]]:
    """Context and target of a call by name, with what says whose each row is, and the scores that it must have."""
    requests = [request_of(ranker, n) for n in lengths]
    context_names, target_names = names_of(requests[0])
    join = torch.stack if many == "dense" else torch.cat
    joined: list[Run] = [{}, {}]
    for side, names in enumerate((context_names, target_names)):
        for path, name in names.items():
            tensors = [(r.context, r.target)[side][path] for r in requests]
            scalar = not tensors[0].dim()
            joined[side][name] = tensors[0] if scalar else torch.cat(tensors) if side == 0 else join(tensors)
    context, target = joined
    expected = [join(scores) for scores in zip(*(original_scores(ranker, r) for r in requests), strict=True)]
    if many == "lengths":
        target["lengths"] = torch.tensor(lengths)
    if many == "request_of":
        order = torch.randperm(sum(lengths), generator=torch.Generator().manual_seed(0))
        target = {name: rows[order] if rows.dim() else rows for name, rows in target.items()}
        target["request_of"] = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[order]
        expected = [scores[order] for scores in expected]
    return context, target, expected


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for scores, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(scores, truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "many"), FILES)
def test_onnx(name: str, many: str, tmp_path: Path) -> None:
    ranker, path = ranker_of(name), tmp_path / "many.onnx"
    done = ranker.export(path, many=many)
    assert done.agreement.identical()
    assert done.requests == ((1, 2, 3, 8) if many == "dense" else (1, 3, 5))
    for lengths in DENSE if many == "dense" else RAGGED:
        context, target, expected = call_of(ranker, lengths, many)
        assert_close(onnx_run(path, context | target), expected)


def test_stages_of_onnx(tmp_path: Path) -> None:
    ranker = packed()
    ranker.export(tmp_path / "many.onnx", many="request_of", stages=True)
    facts = json.loads((tmp_path / "many.stages.json").read_text())
    assert facts["many"] == "request_of"
    assert facts["compared"]["requests"] == [1, 3, 5]
    context, target, expected = call_of(ranker, (4, 0, 1, 7), "request_of")
    state = onnx_run(tmp_path / "many.context.onnx", context | target)
    by_name = dict(zip((tensor["name"] for tensor in facts["state"]), state, strict=True))
    described = {port["name"]: port["shape"] for port in facts["candidate"]["inputs"] if port["role"] == "state"}
    assert "B" in {shape[0] for shape in described.values()}
    for name, shape in described.items():  # what only a scalar decides is the same for all requests, and has no B
        assert list(by_name[name].shape) == [4 if size == "B" else size for size in shape]
    assert_close(onnx_run(tmp_path / "many.candidate.onnx", context | target | by_name), expected)


@pytest.mark.parametrize("many", ["dense", "lengths"])
def test_a_torch_program(many: str, tmp_path: Path) -> None:
    ranker, path = packed(), tmp_path / "many.pt2"
    assert ranker.export(path, many=many).runtime == "torch.export"
    extra = {"rankopt_export.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    names = [tensor["name"] for tensor in json.loads(extra["rankopt_export.json"])["inputs"]]
    for lengths in DENSE if many == "dense" else RAGGED:
        context, target, expected = call_of(ranker, lengths, many)
        with torch.no_grad():
            assert_close(list(module(*((context | target)[name] for name in names))), expected)


def test_a_way_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no way 'sparse' to put many requests(.|\n)*'dense', 'lengths'"):
        packed().export(tmp_path / "many.onnx", many="sparse")


def test_rows_of_the_original_hold_one_request(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="rows of the original repeat one request"):
        packed().export(tmp_path / "many.onnx", many="dense", signature="rows")
    assert list(tmp_path.iterdir()) == []
