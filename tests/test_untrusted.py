"""Files made to run code when they are read: refused before torch sees them."""

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import with_added, with_json, with_member
from torch import Tensor, nn

from rankopt.archive import read_program
from rankopt.errors import FormatError
from rankopt.untrusted import is_arithmetic


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.offset = torch.ones(2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        rows = x.shape[0]
        return (self.linear(x) + self.offset + y).reshape(rows * 2, 1).expand(2 * rows, 3)


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dim = torch.export.Dim("rows")
    rows = (torch.randn(4, 3), torch.randn(4, 2))
    program = torch.export.export(Small().eval(), rows, dynamic_shapes=({0: dim}, {0: dim}), strict=False)
    path = tmp_path_factory.mktemp("programs") / "model.pt2"
    torch.export.save(program, path)
    return path


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def creating(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def read_anyway(path: Path) -> None:
    """What becomes of the file without looking at it first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.export.load(path).module()
        except Exception:  # it may well fail once its code has run
            return


def assert_refused(path: Path, canary: Path, why: str) -> None:
    with pytest.raises(FormatError, match=f"would run code when it is read: .*{why}"):
        read_program(path)
    assert not canary.exists()


def test_an_honest_program_is_read(path: Path) -> None:
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    assert read_program(path).module()(x, y).shape == (10, 3)


def test_pickled_example_inputs(path: Path, tmp_path: Path, canary: Path) -> None:
    hostile = with_member(
        path, tmp_path / "hostile.pt2", "sample_inputs/model.pt", lambda _: pickle.dumps((Payload(canary),))
    )
    assert_refused(hostile, canary, "the example inputs")
    read_anyway(hostile)
    assert canary.exists()


def test_a_size_that_is_evaluated(path: Path, tmp_path: Path, canary: Path) -> None:
    def replace(data: Any) -> None:
        for value in data["graph_module"]["graph"]["sym_int_values"].values():
            value["as_expr"]["expr_str"] = creating(canary)

    hostile = with_json(path, tmp_path / "hostile.pt2", "models/model.json", replace)
    assert_refused(hostile, canary, "a size is the expression")
    read_anyway(hostile)
    assert canary.exists()


def test_a_check_of_inputs_that_is_evaluated(path: Path, tmp_path: Path, canary: Path) -> None:
    def replace(data: Any) -> None:
        data["guards_code"] = [f"{creating(canary)} or True"]

    hostile = with_json(path, tmp_path / "hostile.pt2", "models/model.json", replace)
    assert_refused(hostile, canary, "it checks its inputs by")


def test_an_operator_that_is_none(path: Path, tmp_path: Path, canary: Path) -> None:
    for target in (
        "torch.serialization.os.system",
        "_operator.methodcaller",
        "torch.hub.load",
        "math.__loader__",
    ):

        def replace(data: Any, target: str = target) -> None:
            data["graph_module"]["graph"]["nodes"][0]["target"] = target

        hostile = with_json(path, tmp_path / "hostile.pt2", "models/model.json", replace)
        assert_refused(hostile, canary, "an operator is called")


def test_a_name_that_is_code(path: Path, tmp_path: Path, canary: Path) -> None:
    def replace(data: Any) -> None:
        data["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = f"y={creating(canary)}"

    hostile = with_json(path, tmp_path / "hostile.pt2", "models/model.json", replace)
    assert_refused(hostile, canary, "a value is called")


def test_an_argument_that_is_code(path: Path, tmp_path: Path, canary: Path) -> None:
    def replace(data: Any) -> None:
        signature = data["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"][-1] = f"y={creating(canary)}"

    hostile = with_json(path, tmp_path / "hostile.pt2", "models/model.json", replace)
    assert_refused(hostile, canary, "an argument is called")


def test_arguments_that_import_modules(path: Path, tmp_path: Path, canary: Path) -> None:
    context = json.dumps({"default_factory_module": "antigravity", "default_factory_name": "fly"})

    def replace(data: Any) -> None:
        data["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(
            [1, {"type": "collections.defaultdict", "context": context, "children_spec": []}]
        )

    hostile = with_json(path, tmp_path / "hostile.pt2", "models/model.json", replace)
    assert_refused(hostile, canary, "modules to import")


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_tensors(path: Path, tmp_path: Path, canary: Path, kind: str) -> None:
    def replace(data: Any) -> None:
        for payload in data["config"].values():
            payload["use_pickle"] = True

    hostile = with_json(path, tmp_path / "hostile.pt2", f"model_{kind}_config.json", replace)
    assert_refused(hostile, canary, "is a pickled object")


@pytest.mark.parametrize("file", ["custom_obj_0", "opaque_obj_0", "../weights/weight_0"])
def test_objects_that_pass_for_tensors(path: Path, tmp_path: Path, canary: Path, file: str) -> None:
    def replace(data: Any) -> None:
        for payload in data["config"].values():
            payload["path_name"] = file

    hostile = with_json(path, tmp_path / "hostile.pt2", "model_constants_config.json", replace)
    assert_refused(hostile, canary, "is a pickled object")


@pytest.mark.parametrize(
    "member", ["data/aotinductor/model/model.so", "data/weights/model.pt", "data/constants/model.pt"]
)
def test_members_that_are_code(path: Path, tmp_path: Path, canary: Path, member: str) -> None:
    assert_refused(with_added(path, tmp_path / "hostile.pt2", member, b"code"), canary, f"'{member}'")


def test_what_is_trusted_is_read(path: Path, tmp_path: Path, canary: Path) -> None:
    added = with_added(path, tmp_path / "trusted.pt2", "data/aotinductor/", b"")
    assert_refused(added, canary, "compiled library")
    replaced = with_member(
        path, tmp_path / "trusted.pt2", "sample_inputs/model.pt", lambda _: pickle.dumps((Payload(canary),))
    )
    with pytest.raises(FormatError, match="cannot be read"):  # these are no inputs, but they were unpickled
        read_program(replaced, trust=True)
    assert canary.exists()


@pytest.mark.parametrize("text", ["4", "2*s0", "Max(1, s0)", "-s0 + 3", "s0 >= 2", "Symbol('s0', integer=True)"])
def test_sizes(text: str) -> None:
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "().__class__",
        "s0.name",
        "Symbol('s0 + f()')",
        "[x for x in y]",
        "lambda: 0",
        "(",
        "x := 1",
        "a[0]",
    ],
)
def test_no_sizes(text: str) -> None:
    assert not is_arithmetic(text)
