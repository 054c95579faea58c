"""Saving and loading: the same scores bit for bit, from one file that plain torch reads too."""

import errno
import inspect
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import with_json, with_member
from torch import Tensor, nn

import rankopt
from rankopt import saved
from rankopt.atomic import _PatientFile
from rankopt.errors import FormatError, InputError, OutputError, VerificationError
from rankopt.ranker import Ranker

CANDIDATES = (0, 1, 2, 5000)


class Model(nn.Module):
    """Embeddings, pairs by a constant index, a packed input, a scalar, layers with awkward names."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(20_000, 16)
        self.items = nn.Embedding(60, 16)
        self.register_buffer("scale", torch.rand(16))
        self.register_buffer("pairs", torch.tensor([[1, 2, 2], [0, 0, 1]]), persistent=False)
        self.stages = nn.Sequential(nn.Linear(16 + 16 + 5 + 3, 24), nn.ReLU())
        self.outputs = nn.Linear(24, 1)

    def forward(self, features: dict[str, Tensor], x: Tensor, bias: Tensor, power: float = 1.0) -> Any:
        user, item = self.users(features["user"]), self.items(features["item"]) * self.scale
        vectors = torch.stack([user, item, user + item], dim=1)
        i, j = self.pairs
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, i, j]
        hidden = self.stages(torch.cat([user, x, item, dots], dim=1))
        return {"score": self.outputs(hidden).squeeze(1) * power + bias, "model": "small", "top": [dots]}


def rows(count: int = 6) -> dict[str, Any]:
    ids = {"user": torch.randint(20_000, (count,)), "item": torch.randint(60, (count,))}
    return {"features": ids, "x": torch.randn(count, 5), "bias": torch.tensor(0.25), "power": 2.0}


def request(candidates: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    context = {
        "features.user": torch.tensor([17]),
        "x": torch.linspace(0, 1, 3).reshape(1, 3),
        "bias": torch.tensor(-0.5),
    }
    return context, {"features.item": torch.randint(60, (candidates,)), "x": torch.randn(candidates, 2)}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    return Model().eval()


@pytest.fixture(scope="module")
def ranker(model: Model) -> Ranker:
    return rankopt.optimize(model, ["features.user", "x[:, [0, 2, 3]]"], example_inputs=rows())


@pytest.fixture(scope="module")
def path(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "ranker.pt2"
    ranker.save(path)
    return path


@pytest.fixture
def loaded(path: Path) -> Ranker:
    return rankopt.load(path)


def assert_same(first: Any, second: Any) -> None:
    assert first["model"] == second["model"] == "small"
    assert torch.equal(first["score"], second["score"])
    assert torch.equal(first["top"][0], second["top"][0])


# ---------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("candidates", CANDIDATES)
def test_scores_are_the_same_bit_for_bit(ranker: Ranker, loaded: Ranker, candidates: int) -> None:
    context, target = request(candidates)
    scores = loaded(context, target)
    assert scores["score"].shape == (candidates,)
    assert_same(scores, ranker(context, target))
    assert_same(loaded.candidate_stage(loaded.context_stage(context), target), scores)


@pytest.mark.parametrize("candidates", CANDIDATES)
def test_plain_torch_reads_it(ranker: Ranker, path: Path, candidates: int) -> None:
    program = torch.export.load(path)
    context, target = request(candidates)
    scores = ranker(context, target)
    with torch.no_grad():
        score, dots = program.module()(context, target)  # a text among the outputs is left out
    assert torch.equal(score, scores["score"])
    assert torch.equal(dots, scores["top"][0])


def test_the_stages_are_derived_as_they_were(ranker: Ranker, loaded: Ranker) -> None:
    assert loaded.stages.state == ranker.stages.state
    assert loaded.stages.prepared == ranker.stages.prepared
    assert loaded.weights().keys() == ranker.weights().keys()


def test_the_original_call_works(ranker: Ranker, loaded: Ranker, model: Model) -> None:
    call = rows(9)
    call["features"]["user"] = call["features"]["user"][:1].expand(9)
    call["x"][:, [0, 2, 3]] = call["x"][:1, [0, 2, 3]]
    assert_same(loaded.from_rows(**call), ranker.from_rows(**call))
    with torch.no_grad():
        torch.testing.assert_close(loaded.from_rows(**call)["score"], model(**call)["score"])
    with pytest.raises(InputError, match=r"captured with 2\.0"):
        loaded.from_rows(**{**call, "power": 3.0})


def test_report_and_interface_are_kept(ranker: Ranker, loaded: Ranker) -> None:
    assert loaded.report == ranker.report
    assert loaded.interface.policy == ranker.interface.policy != ""
    assert loaded.interface.candidates == 512
    assert loaded.interface.inputs == ranker.interface.inputs
    assert loaded.interface.roles == ranker.interface.roles


def test_new_weights_under_the_original_names(ranker: Ranker, path: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    other = Model().eval()
    context, target = request(40)
    mine = rankopt.load(path)
    mine.load_original_state_dict(other.state_dict() | {"pairs": other.pairs})
    fresh = rankopt.optimize(other, ["features.user", "x[:, [0, 2, 3]]"], example_inputs=rows())
    assert_same(mine(context, target), fresh(context, target))
    mine.save(tmp_path / "refreshed.pt2")
    assert_same(rankopt.load(tmp_path / "refreshed.pt2")(context, target), fresh(context, target))


def test_saving_again_gives_the_same_file(loaded: Ranker, path: Path, tmp_path: Path) -> None:
    loaded.save(tmp_path / "again.pt2")
    with zipfile.ZipFile(path) as first, zipfile.ZipFile(tmp_path / "again.pt2") as second:
        assert first.namelist() == second.namelist()
        assert [n for n in first.namelist() if first.read(n) != second.read(n)] == []


def test_the_file_is_no_larger_than_the_models(model: Model, path: Path, tmp_path: Path) -> None:
    dim = torch.export.Dim("rows")
    features = {"user": {0: dim}, "item": {0: dim}}
    shapes = {"features": features, "x": {0: dim}, "bias": None, "power": None}
    program = torch.export.export(model, (), rows(), dynamic_shapes=shapes, strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    assert path.stat().st_size <= 1.03 * (tmp_path / "model.pt2").stat().st_size


def test_parameters_are_there_under_their_own_names(model: Model, path: Path) -> None:
    program = torch.export.load(path)
    assert dict(program.named_parameters()).keys() == dict(model.named_parameters()).keys()


def test_nothing_of_this_machine_is_written(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if "/models/" in name)
        assert str(Path(saved.__file__).parent) not in archive.read(name).decode()


# ---------------------------------------------------------------------------------------------- verification


def test_a_loaded_ranker_is_verified_against_a_model(loaded: Ranker, model: Model) -> None:
    assert loaded.verify(candidates=(1, 30), model=model, example_inputs=rows()).identical


def test_a_loaded_ranker_does_not_hold_the_original(loaded: Ranker, ranker: Ranker) -> None:
    assert ranker.verify(candidates=(3,)).identical
    with pytest.raises(VerificationError, match="model=original"):
        loaded.verify()


def test_another_model_is_not_identical(loaded: Ranker) -> None:
    torch.manual_seed(3)
    found = loaded.verify(candidates=(30,), model=Model().eval(), example_inputs=rows())
    assert not found.identical
    with pytest.raises(VerificationError, match="does not give the scores"):
        found.check()


def test_a_model_with_other_inputs_is_refused(loaded: Ranker) -> None:
    with pytest.raises(InputError, match=r"its inputs differ(.|\n)*features.user"):
        loaded.verify(model=nn.Linear(3, 1).eval(), example_inputs=torch.randn(4, 3))


# ---------------------------------------------------------------------------------------------- writing


def test_nothing_is_overwritten_unasked(ranker: Ranker, tmp_path: Path) -> None:
    path = tmp_path / "ranker.pt2"
    path.write_text("precious")
    with pytest.raises(OutputError, match="it exists"):
        ranker.save(path)
    assert path.read_text() == "precious"
    ranker.save(path, overwrite=True)
    assert rankopt.load(path).stages.state == ranker.stages.state


def test_a_folder_must_exist(ranker: Ranker, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        ranker.save(tmp_path / "missing" / "ranker.pt2")
    with pytest.raises(OutputError, match="it is a folder"):
        ranker.save(tmp_path, overwrite=True)


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_nothing(
    ranker: Ranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    path = tmp_path / "ranker.pt2"
    path.write_text("precious")

    def half(_program: Any, file: Any, **_: Any) -> None:
        file.write(b"half of it")
        raise stop

    monkeypatch.setattr(torch.export, "save", half)
    expected = OutputError if isinstance(stop, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        ranker.save(path, overwrite=True)
    assert os.listdir(tmp_path) == ["ranker.pt2"]
    assert path.read_text() == "precious"


def test_a_full_disk_is_named(ranker: Ranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        ranker.save(tmp_path / "ranker.pt2")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_writer_that_calls_back_is_not_interrupted(tmp_path: Path, stop: BaseException) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise stop

    file = _PatientFile(Full())
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.randn(1, 2),)), file)
    with pytest.raises(type(stop)):
        file.check()


def test_what_a_file_cannot_hold_is_named(tmp_path: Path) -> None:
    class Tagged(nn.Module):
        def forward(self, a: Tensor, b: Tensor, tag: Any = None) -> Tensor:
            return (a + b).sum(1)

    example = {"a": torch.randn(3, 2), "b": torch.randn(3, 2), "tag": inspect.Parameter.POSITIONAL_ONLY}
    ranker = rankopt.optimize(Tagged().eval(), ["a"], example_inputs=example)
    with pytest.raises(FormatError, match="tag is a _ParameterKind"):
        ranker.save(tmp_path / "ranker.pt2")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("tag", [None, 3, "text", 1 + 2j, b"\x00\x01", torch.float16, torch.device("cpu")])
def test_plain_arguments_come_back(tmp_path: Path, tag: Any) -> None:
    class Tagged(nn.Module):
        def forward(self, a: Tensor, b: Tensor, tag: Any = None) -> Any:
            return (a + b).sum(1), tag

    example = {"a": torch.randn(3, 2), "b": torch.randn(3, 2), "tag": tag}
    ranker = rankopt.optimize(Tagged().eval(), ["a"], example_inputs=example, verification=False)
    data = saved.describe(ranker).to_json()
    back = type(saved.describe(ranker)).from_json(json.loads(json.dumps(data)))
    assert back.interface.call.leaves == ranker.interface.call.leaves
    assert back.interface.output_constants == ranker.interface.output_constants


# ---------------------------------------------------------------------------------------------- bad files


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        rankopt.load(tmp_path / "missing.pt2")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.pt2").write_text("a shopping list")
    with pytest.raises(FormatError, match="is not a model"):
        rankopt.load(tmp_path / "notes.pt2")


def test_an_archive_that_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.pt2", "w") as archive:
        archive.writestr("photos/cat.txt", "meow")
    with pytest.raises(FormatError, match="not of a model"):
        rankopt.load(tmp_path / "photos.pt2")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file(path: Path, tmp_path: Path, share: float) -> None:
    content = path.read_bytes()
    (tmp_path / "cut.pt2").write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match="truncated"):
        rankopt.load(tmp_path / "cut.pt2")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.pt2").touch()
    with pytest.raises(FormatError, match="is not a model"):
        rankopt.load(tmp_path / "empty.pt2")


def test_a_model_that_is_no_ranker(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(3, 1).eval(), (torch.randn(4, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(FormatError, match=r"not an optimised ranker(.|\n)*rankopt optimize"):
        rankopt.load(tmp_path / "model.pt2")


def test_a_later_version(path: Path, tmp_path: Path) -> None:
    def later(data: Any) -> None:
        data["format"] = 7
        data["versions"]["rankopt"] = "9.1"

    later_file = with_json(path, tmp_path / "later.pt2", "rankopt.json", later)
    with pytest.raises(FormatError, match=r"later.pt2 (.|\n)*version 7(.|\n)*9.1(.|\n)*readable: 1"):
        rankopt.load(later_file)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"{}", b'{"format": 1}', b'{"format": 1, "interface": 3}'])
def test_a_damaged_description(path: Path, tmp_path: Path, damage: bytes) -> None:
    damaged = with_member(path, tmp_path / "damaged.pt2", "rankopt.json", lambda _: damage)
    with pytest.raises(FormatError, match=r"damaged|format version"):
        rankopt.load(damaged)


def test_a_damaged_graph(path: Path, tmp_path: Path) -> None:
    damaged = with_member(path, tmp_path / "damaged.pt2", "models/model.json", lambda old: old[: len(old) // 2])
    with pytest.raises(FormatError, match="cannot be read"):
        rankopt.load(damaged)


def test_a_description_of_another_graph(path: Path, tmp_path: Path) -> None:
    def shorter(data: Any) -> None:
        data["context"].pop()

    with pytest.raises(FormatError, match="inputs"):
        rankopt.load(with_json(path, tmp_path / "other.pt2", "rankopt.json", shorter))


def test_a_report_of_another_version_is_left_out(path: Path, tmp_path: Path) -> None:
    def other(data: Any) -> None:
        data["report"]["version"] = 99

    loaded = rankopt.load(with_json(path, tmp_path / "other.pt2", "rankopt.json", other))
    assert loaded.report is None
    assert loaded(*request(3))["score"].shape == (3,)
