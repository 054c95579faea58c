"""What can be asked for, and what a saved ranker knows of its inputs."""

from pathlib import Path

import pytest
import torch
from exported import packed, packed_rows, request_of

import rankopt
from rankopt.artefacts.formats import default_backend, files_of, format_of, plain_names
from rankopt.errors import InputError, OutputError, StageError
from rankopt.ranges import examples_of, ranges_to_json


@pytest.mark.parametrize(
    ("name", "format_name", "backend"),
    [
        ("a.pt2", "PROGRAM", "eager"),
        ("a.b.ONNX", "ONNX", "onnxruntime"),
        ("a.aoti.pt2", "PACKAGE", "inductor"),
        ("aoti.pt2", "PROGRAM", "eager"),
    ],
)
def test_the_ending_is_the_format(name: str, format_name: str, backend: str) -> None:
    assert format_of(Path(name)).name == format_name
    assert default_backend(Path(name)) == backend


@pytest.mark.parametrize("name", ["model", "model.pt", ".onnx", "model.onnx.gz"])
def test_an_ending_that_no_format_has(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no format has this ending(.|\n)*\.pt2, \.onnx, \.aoti\.pt2"):
        packed().export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_names_of_stages() -> None:
    names = [path.name for path in files_of(Path("d/fast.aoti.pt2"), stages=True)]
    assert names == ["fast.context.aoti.pt2", "fast.candidate.aoti.pt2", "fast.stages.json"]


def test_names_of_inputs() -> None:
    given = [("features.user:id", "context"), ("x", "context"), ("x", "target"), ("a.b", "target"), ("a_b", "target")]
    assert plain_names(given) == ["features_user_id", "x_context", "x_target", "a_b", "a_b_2"]
    assert plain_names([("0", "target"), ("ä", "target")]) == ["_0", "_"]


def test_stages_take_no_rows(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="stages take a request in two parts"):
        packed().export(tmp_path / "fast.onnx", stages=True, signature="rows")


def test_a_signature_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no signature 'columns'(.|\n)*'request', 'rows'"):
        packed().export(tmp_path / "fast.onnx", signature="columns")


@pytest.mark.parametrize("name", ["fast.onnx", "fast.context.onnx", "fast.stages.json"])
def test_a_file_that_exists(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match="it exists"):
        packed().export(tmp_path / "fast.onnx", stages=name != "fast.onnx")
    assert (tmp_path / name).read_text() == "precious"


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        packed().export(tmp_path / "missing" / "fast.onnx")


def test_a_loaded_ranker_knows_the_ranges_of_its_inputs(tmp_path: Path) -> None:
    packed().save(tmp_path / "ranker.pt2")
    loaded = rankopt.load(tmp_path / "ranker.pt2")
    for name, rows in packed().examples.items():
        if rows.dim():
            assert torch.equal(loaded.examples[name].amin(0), rows.amin(0))
            assert torch.equal(loaded.examples[name].amax(0), rows.amax(0))
        assert loaded.examples[name].dtype == rows.dtype
    loaded.save(tmp_path / "again.pt2")
    again = rankopt.load(tmp_path / "again.pt2").examples
    assert all(torch.equal(rows, again[name]) for name, rows in loaded.examples.items())
    assert request_of(loaded, 9).candidates == 9


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([[True, False], [True, True]]),
        torch.tensor([[0.0, float("-inf")], [1.5, float("nan")]], dtype=torch.float16),
        torch.tensor([[-(2**63)], [2**63 - 1]]),
        torch.tensor(7),
    ],
)
def test_ranges_of_any_type(rows: torch.Tensor) -> None:
    (back,) = examples_of(ranges_to_json({"x": rows})).values()
    assert back.dtype == rows.dtype
    expected = torch.stack([rows.double().amin(0), rows.double().amax(0)]) if rows.dim() else rows.double()
    torch.testing.assert_close(back.double(), expected, equal_nan=True)


def test_a_ranker_that_knows_no_ranges(tmp_path: Path) -> None:
    packed().save(tmp_path / "ranker.pt2")
    loaded = rankopt.load(tmp_path / "ranker.pt2")
    loaded.examples = {}
    with pytest.raises(InputError, match=r"does not know the range(.|\n)*--example"):
        loaded.export(tmp_path / "fast.pt2")
    assert loaded.export(tmp_path / "fast.pt2", example_inputs=packed_rows()).agreement.identical()


def test_indices_that_a_graph_was_specialised_for_cannot_be_replaced(tmp_path: Path) -> None:
    class Picks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("places", torch.tensor([0, 2]))
            self.weight = torch.nn.Parameter(torch.randn(3))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a * b * self.weight)[:, self.places].sum(1)

    model = Picks().eval()
    ranker = rankopt.optimize(model, ["a"], example_inputs=(torch.randn(5, 3), torch.randn(5, 3)))
    ranker.save(tmp_path / "ranker.pt2")
    other = {"places": torch.tensor([0, 1]), "weight": torch.ones(3)}
    for given in (ranker, rankopt.load(tmp_path / "ranker.pt2")):
        with pytest.raises(StageError, match="places"):
            given.load_original_state_dict(other)
        given.load_original_state_dict(other | {"places": torch.tensor([0, 2])})
