"""ONNX files: the scores of the original at any number of candidates, whole, in stages, and on the original's rows."""

import json
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from exported import original_scores, packed, ranker_of, request_of
from torch import Tensor

from rankopt.errors import ExportError, OutputError, VerificationError
from rankopt.identity import program_hash
from rankopt.ranker import Ranker
from rankopt.requests import Request, tile

MODELS = ("dlrm", "dcnv2", "autoint", "packed")
CANDIDATES = (0, 1, 3, 200)


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path: Path, feed: dict[str, Tensor]) -> dict[str, Tensor]:
    opened = session(path)
    names = [item.name for item in opened.get_outputs()]
    arrays = opened.run(names, {item.name: feed[item.name].numpy() for item in opened.get_inputs()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


def feed_of(request: Request) -> dict[str, Tensor]:
    """Inputs by the names that the page about export promises."""
    both = request.context.keys() & request.target.keys()
    feed = {}
    for role, inputs in (("context", request.context), ("target", request.target)):
        for path, tensor in inputs.items():
            name = path.replace(".", "_").replace(":", "_")
            feed[f"{name}_{role}" if path in both else name] = tensor
    return feed


def assert_scores(found: dict[str, Tensor], ranker: Ranker, request: Request) -> None:
    for score, expected in zip(found.values(), original_scores(ranker, request), strict=True):
        torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-5)


def assert_no_product_of_vectors(path: Path) -> None:
    """An operand of one dim, next to a transpose, is silently wrong in ONNX Runtime."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    ranks = {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    ranks |= {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert products
    assert all(ranks[name] >= 2 for node in products for name in node.input[:2])


@pytest.mark.parametrize("name", MODELS)
def test_whole(name: str, tmp_path: Path) -> None:
    ranker = ranker_of(name)
    done = ranker.export(tmp_path / "fast.onnx")
    assert [path.name for path in done.files] == ["fast.onnx"]
    assert done.agreement.identical()
    assert done.candidates == (1, 2, 37, 1000)
    for candidates in CANDIDATES:
        request = request_of(ranker, candidates)
        assert_scores(run(tmp_path / "fast.onnx", feed_of(request)), ranker, request)
    assert_no_product_of_vectors(tmp_path / "fast.onnx")


@pytest.mark.parametrize("name", [pytest.param("dlrm", marks=pytest.mark.slow), "packed"])
def test_stages(name: str, tmp_path: Path) -> None:
    ranker = ranker_of(name)
    done = ranker.export(tmp_path / "fast.onnx", stages=True)
    assert [path.name for path in done.files] == ["fast.candidate.onnx", "fast.context.onnx", "fast.stages.json"]
    facts = json.loads((tmp_path / "fast.stages.json").read_text())
    state_names = [tensor["name"] for tensor in facts["state"]]
    for candidates in CANDIDATES:
        request = request_of(ranker, candidates)
        feed = feed_of(request)
        state = run(tmp_path / facts["context"]["file"], feed)
        assert list(state) == state_names
        for fact, tensor in zip(facts["state"], state.values(), strict=True):
            assert fact["shape"] == list(tensor.shape)
            assert fact["bytes"] == tensor.nbytes
            assert f"torch.{fact['dtype']}" == str(tensor.dtype)
        assert_scores(run(tmp_path / facts["candidate"]["file"], feed | state), ranker, request)
    version = {"program": program_hash(ranker.stages), "weights": ranker.weights_hash()}
    assert {name: facts[name] for name in version} == version
    for stage in ("context", "candidate"):  # so that no stage is run with another's
        said = session(tmp_path / facts[stage]["file"]).get_modelmeta().custom_metadata_map
        assert {name: json.loads(said[f"rankopt.{name}"]) for name in version} == version
    assert facts["state_dtype"] is None
    assert facts["flops_saved_per_state_byte"] == ranker.report.saved_per_byte
    assert facts["state_bytes"] == sum(tensor.bytes for tensor in ranker.stages.state)


@pytest.mark.parametrize("name", [pytest.param("dlrm", marks=pytest.mark.slow), "packed"])
def test_rows(name: str, tmp_path: Path) -> None:
    ranker = ranker_of(name)
    ranker.export(tmp_path / "fast.onnx", signature="rows")
    for candidates in (1, 3, 200):
        request = request_of(ranker, candidates)
        rows = tile(ranker.interface.roles, request)
        feed = {path.replace(".", "_").replace(":", "_"): tensor for path, tensor in rows.items()}
        assert_scores(run(tmp_path / "fast.onnx", feed), ranker, request)


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    packed().export(tmp_path / "fast.onnx")
    opened = session(tmp_path / "fast.onnx")
    shapes = {item.name: item.shape for item in opened.get_inputs()}
    assert shapes["x_context"] == [1, 3]
    assert shapes["x_target"] == ["candidates", 2]
    assert shapes["bias"] == []
    assert [item.name for item in opened.get_outputs()] == ["score", "top_0"]
    facts = opened.get_modelmeta().custom_metadata_map
    inputs = json.loads(facts["rankopt.inputs"])
    assert {item["name"]: item["path"] for item in inputs}["features_user_id"] == "features.user:id"
    assert json.loads(facts["rankopt.weights"]).startswith("sha256:")
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "fast.onnx").read_bytes()


def test_external_data(tmp_path: Path) -> None:
    ranker = packed()
    done = ranker.export(tmp_path / "fast.onnx", single_file=1_000)
    assert [path.name for path in done.files] == ["fast.onnx", "fast.onnx.data"]
    model = onnx.load(tmp_path / "fast.onnx", load_external_data=False)
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert outside
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {
        "fast.onnx.data"
    }
    request = request_of(ranker, 5)
    assert_scores(run(tmp_path / "fast.onnx", feed_of(request)), ranker, request)


def test_a_file_in_the_way_of_external_data(tmp_path: Path) -> None:
    (tmp_path / "fast.onnx.data").write_text("precious")
    with pytest.raises(OutputError, match=r"fast.onnx.data: it exists"):
        packed().export(tmp_path / "fast.onnx", single_file=1_000)
    assert [path.name for path in tmp_path.iterdir()] == ["fast.onnx.data"]
    assert (tmp_path / "fast.onnx.data").read_text() == "precious"


# ------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("stages", [False, True])
def test_a_runtime_that_gives_other_scores(stages: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ort.InferenceSession.run

    def wrong(self: ort.InferenceSession, names: list[str], feed: dict[str, object]) -> list[object]:
        results = honest(self, names, feed)
        many = "score" in names and len(results[0]) == 37
        return [r + 1e-3 if many and name == "score" else r for name, r in zip(names, results, strict=True)]

    monkeypatch.setattr(ort.InferenceSession, "run", wrong)
    with pytest.raises(VerificationError, match=r"ONNX Runtime(.|\n)*output: score, at 37 candidates\n  found: .*fur"):
        packed().export(tmp_path / "fast.onnx", stages=stages)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays_where_the_runtime_disagrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fast.onnx").write_text("precious")
    monkeypatch.setattr(ort.InferenceSession, "run", lambda *_: [torch.zeros(3).numpy()] * 2)
    with pytest.raises(VerificationError, match=r"another kind at 1 candidates(.|\n)*found: \[3\]"):
        packed().export(tmp_path / "fast.onnx", overwrite=True)
    assert (tmp_path / "fast.onnx").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_runtime_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(ort.InferenceSession, "run", fails)
    with pytest.raises(VerificationError, match=r"cannot run (.|\n)*out of luck"):
        packed().export(tmp_path / "fast.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_op_that_onnx_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("No decompositions registered for aten.mystery")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ExportError, match=r"cannot be written as ONNX: No decomp(.|\n)*fix: export a torch program"):
        packed().export(tmp_path / "fast.onnx")
    assert list(tmp_path.iterdir()) == []
