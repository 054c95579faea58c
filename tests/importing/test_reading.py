"""Files that cannot be read: damaged, of unknown operators, pointing elsewhere. Each is refused before it is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_graphs import FRAMEWORKS, floats, graph, keras, node, run

import rankopt
from rankopt.errors import CaptureError, FormatError, InputError, VerificationError
from rankopt.importing.model import import_onnx
from rankopt.importing.original import Original


def external(folder: Path) -> onnx.ModelProto:
    onnx.save(keras(), folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=256)
    return onnx.load(folder / "m.onnx", load_external_data=False)


def rewritten(made: onnx.ModelProto, **facts: str) -> onnx.ModelProto:
    for weight in made.graph.initializer:
        for entry in weight.external_data:
            entry.value = facts.get(entry.key, entry.value)
    return made


def test_external_data(tmp_path: Path) -> None:
    external(tmp_path)
    model = import_onnx(tmp_path / "m.onnx")
    rows = model.example_rows()
    (expected,) = run(tmp_path / "m.onnx", {name: values.numpy() for name, values in rows.items()})
    with torch.no_grad():
        np.testing.assert_allclose(model(**rows)["Identity:0"].numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"location": "../secret"}, "outside of the model's folder"),
        ({"location": "/etc/passwd"}, "outside of the model's folder"),
        ({"location": "link"}, "outside of the model's folder"),
        ({"location": "missing"}, "no such file"),
        ({"offset": "999999999"}, "found: .* bytes"),
        ({"offset": "-1"}, "is not in"),
        ({"length": "8"}, "is not in"),
        ({"offset": "x"}, "is not in"),
    ],
)
def test_external_data_that_is_not_there(facts: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(10**5))
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    made = rewritten(external(folder), **facts)
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(FormatError, match=words):
        import_onnx(folder / "m.onnx")


def test_external_data_of_a_message(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="give the path of the model"):
        import_onnx(external(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no model at all", b"\x08\x07"])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FormatError, match=r"truncated"):
        import_onnx(tmp_path / "m.onnx")


def test_truncated(tmp_path: Path) -> None:
    whole = keras().SerializeToString()
    for share in (0.3, 0.9, 0.999):
        (tmp_path / "m.onnx").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FormatError):
            import_onnx(tmp_path / "m.onnx")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        import_onnx(tmp_path / "m.onnx")


def test_all_missing_operators_are_named_at_once() -> None:
    made = keras()
    made.graph.node.append(node("NonMaxSuppression", "dense dense", "a"))
    made.graph.node.extend(node("GRU", "dense dense dense", f"g{i}") for i in range(5))
    made.graph.node.append(helper.make_node("FusedMatMul", ["dense"], ["b"], name="fused", domain="com.microsoft"))
    with pytest.raises(CaptureError) as caught:
        import_onnx(made)
    text = str(caught.value)
    assert "GRU: 'GRU_g0', 'GRU_g1', 'GRU_g2' and 2 more" in text
    assert "NonMaxSuppression: 'NonMaxSuppression_a'" in text
    assert "com.microsoft.FusedMatMul: 'fused'" in text


@pytest.mark.parametrize("version", [9, 99])
def test_another_version(version: int) -> None:
    made = keras()
    made.opset_import[0].version = version
    with pytest.raises(FormatError, match=rf"version {version}(.|\n)*expected: 11 to 23"):
        import_onnx(made)


def test_a_malformed_graph() -> None:
    made = keras()
    made.graph.node[0].input[1] = "nobody"
    with pytest.raises(FormatError, match="malformed"):
        import_onnx(made)


def test_a_weight_of_another_size() -> None:
    made = keras()
    made.graph.initializer[0].dims[0] = 10**12
    with pytest.raises(FormatError, match="does not hold the elements of its shape"):
        import_onnx(made)


def test_functions_are_written_out() -> None:
    body = [node("MatMul", "a b", "c"), node("Relu", "c", "d")]
    version = [helper.make_opsetid("", 18)]
    made = graph([node("Neg", "x", "y")], {"x": floats(2, 3)}, {"w": floats(3, 4)}, ["y"])
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.functions.append(helper.make_function("own", "Layer", ["a", "b"], ["d"], body, version))
    del made.graph.node[:]
    made.graph.node.append(helper.make_node("Layer", ["x", "w"], ["y"], domain="own"))
    assert [n.op for n in import_onnx(made).graph.nodes] == ["MatMul", "Relu"]


def test_functions_that_never_end() -> None:
    def bomb(inner: str, name: str) -> onnx.FunctionProto:
        nodes = [helper.make_node(inner, ["a"], [f"b{i}"], domain="own") for i in range(30)]
        return helper.make_function("own", name, ["a"], ["b0"], nodes, [helper.make_opsetid("own", 1)])

    made = keras()
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.graph.node.append(helper.make_node("F5", ["dense"], ["z"], domain="own"))
    made.functions.extend(bomb(f"F{i - 1}", f"F{i}") for i in range(1, 6))
    made.functions.append(
        helper.make_function("own", "F0", ["a"], ["b0"], [node("Neg", "a", "b0")], [helper.make_opsetid("", 15)])
    )
    with pytest.raises(FormatError, match="more than 1,000,000 nodes"):
        import_onnx(made)
    del made.functions[1:]
    made.functions[0].node[0].op_type = "F1"
    made.graph.node[-1].op_type = "F1"
    with pytest.raises(FormatError, match="F1 calls itself"):
        import_onnx(made)


def test_an_input_that_is_no_tensor_of_numbers() -> None:
    made = keras()
    made.graph.input[2].type.tensor_type.elem_type = onnx.TensorProto.STRING
    with pytest.raises(FormatError, match="the input 'dense'"):
        import_onnx(made)


def test_rows_that_are_fixed() -> None:
    made = keras()
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    with pytest.raises(InputError, match=r"'user_id:0' has 8 rows(.|\n)*dynamic batch"):
        rankopt.optimize(made, ["user_id*"])


def test_another_free_dim_needs_rows() -> None:
    make, context = FRAMEWORKS["paddle"]
    made = make()
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    with pytest.raises(InputError, match=r"more than one free dim(.|\n)*--example"):
        rankopt.optimize(made, context)
    rows = {"history": torch.zeros(3, 6).long(), "item": torch.arange(3), "price": torch.rand(3, 1)}
    rankopt.optimize(made, context, example_inputs=rows)


def test_a_shape_that_depends_on_the_data() -> None:
    rows = {"x": floats(2, 4), "n": np.zeros((2,), np.int64)}
    made = graph([node("Reshape", "x n", "y")], rows, {}, ["y"])
    with pytest.raises(CaptureError, match=r"'Reshape_y' \(Reshape\)(.|\n)*integers that depend on the data"):
        rankopt.optimize(made, ["n"])


def test_a_file_that_was_read_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Original.run
    monkeypatch.setattr(Original, "run", lambda self, rows: [score * 1.001 for score in honest(self, rows)])
    with pytest.raises(VerificationError, match=r"not read as ONNX Runtime runs it"):
        rankopt.optimize(keras(), ["user_id*"])
