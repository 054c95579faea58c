"""Rankers as other frameworks write them: read, rewritten, exported, and compared with the file that was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx_graphs import FRAMEWORKS, keras, run

import rankopt
from rankopt.errors import StageError
from rankopt.importing.model import OnnxModel, import_onnx
from rankopt.requests import draw_request, tile


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_rewritten_and_exported_it_gives_the_scores_of_the_file(name: str, tmp_path: Path) -> None:
    make, context = FRAMEWORKS[name]
    made = make()
    onnx.save(made, tmp_path / "model.onnx")
    ranker = rankopt.optimize(tmp_path / "model.onnx", context, backend="onnxruntime")
    assert ranker.verify(candidates=(1, 37)).identical
    assert ranker.export(tmp_path / "rows.onnx", signature="rows").agreement.identical()
    names = [item.name for item in ort.InferenceSession(tmp_path / "rows.onnx").get_inputs()]
    assert names == [item.name for item in made.graph.input]
    for candidates in (1, 2, 37, 1000):
        request = draw_request(
            ranker.interface.roles, ranker.examples, candidates, torch.Generator().manual_seed(candidates)
        )
        rows = {path: tensor.numpy() for path, tensor in tile(ranker.interface.roles, request).items()}
        expected = run(tmp_path / "model.onnx", rows)
        with torch.no_grad():
            found = ranker(request.context, request.target)
        assert list(found) == [item.name for item in made.graph.output]
        for truth, score, served in zip(expected, found.values(), run(tmp_path / "rows.onnx", rows), strict=True):
            np.testing.assert_allclose(score.numpy(), truth, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(served, truth, rtol=1e-4, atol=1e-5)


def test_weights_keep_their_names_and_can_be_replaced() -> None:
    made = keras()
    ranker = rankopt.optimize(made, ["user_id*"])
    assert "model/dense/kernel:0" in ranker.weights()
    other = import_onnx(made).state_dict()
    for name in other:
        if other[name].is_floating_point():
            other[name] = other[name] * 0.5
    ranker.load_original_state_dict(other)
    for weight in made.graph.initializer:
        if weight.name in other and weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(onnx.numpy_helper.from_array(other[weight.name].numpy(), weight.name))
    assert ranker.verify(model=import_onnx(made)).identical


def test_numbers_cannot_be_replaced() -> None:
    make, context = FRAMEWORKS["sklearn"]
    ranker = rankopt.optimize(make(), context)
    other = import_onnx(make()).state_dict()
    other["one"] = torch.tensor(2.0)
    with pytest.raises(StageError, match="one"):
        ranker.load_original_state_dict(other)


def test_ids_are_drawn_from_their_tables() -> None:
    rows = import_onnx(keras()).example_rows()
    assert rows["user_id:0"].dtype == torch.int32
    assert 20 < int(rows["user_id:0"].max()) < 40
    assert rows["item_id:0"].unique().numel() > 20
    assert rows["dense"].shape == (64, 4)


def test_context_by_examples_and_a_saved_ranker(tmp_path: Path) -> None:
    made = keras()
    rows = import_onnx(made).example_rows()
    target = {name: values for name, values in rows.items() if name != "user_id:0"}
    ranker = rankopt.optimize(made, {"user_id:0": rows["user_id:0"][:1]}, target)
    ranker.save(tmp_path / "ranker.pt2")
    loaded = rankopt.load(tmp_path / "ranker.pt2")
    with torch.no_grad():
        found = loaded({"user_id:0": rows["user_id:0"][:1]}, target)["Identity:0"]
    tiled = {"user_id:0": rows["user_id:0"][:1].repeat(64, 1)} | target
    (expected,) = run(made, {name: values.numpy() for name, values in tiled.items()})
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert loaded.verify(model=import_onnx(made)).identical


def test_a_drop_in_program_is_called_by_keywords(tmp_path: Path) -> None:
    made = keras()
    rankopt.optimize(made, ["user_id*"]).export(tmp_path / "rows.pt2", signature="rows")
    rows = import_onnx(made).example_rows()
    rows["user_id:0"] = rows["user_id:0"][:1].repeat(64, 1)
    program = torch.export.load(tmp_path / "rows.pt2").module()
    with torch.no_grad():
        found = program(user_id_0=rows["user_id:0"], item_id_0=rows["item_id:0"], dense=rows["dense"])
    (expected,) = run(made, {name: values.numpy() for name, values in rows.items()})
    np.testing.assert_allclose(found["Identity:0"].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_report_names_nodes_of_the_file(tmp_path: Path) -> None:
    onnx.save(keras(), tmp_path / "model.onnx")
    report = rankopt.explain(tmp_path / "model.onnx", ["user_id*"])
    lines = [node.line for node in report.nodes if node.line is not None]
    assert any(line.file.endswith("model.onnx") and line.code == "Relu Relu_h" for line in lines)


def test_names_with_dots_that_lead_nowhere() -> None:
    made = keras()
    for old, new in (("model/dense/kernel:0", "a"), ("model/dense/bias:0", "a.b"), ("model/out/bias:0", ".c.")):
        for weight in made.graph.initializer:
            weight.name = new if weight.name == old else weight.name
        for item in made.graph.node:
            item.input[:] = [new if name == old else name for name in item.input]
    model = import_onnx(made)
    assert isinstance(model, OnnxModel)
    rows = model.example_rows()
    (expected,) = run(made, {name: values.numpy() for name, values in rows.items()})
    with torch.no_grad():
        np.testing.assert_allclose(model(**rows)["Identity:0"].numpy(), expected, rtol=1e-4, atol=1e-6)
    rankopt.optimize(made, ["user_id*"])
