"""The state of a request as a value: what it knows, how it is stored, and which states a ranker takes."""

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from exported import packed, request_of
from small_ranker import Small, example_rows
from torch import Tensor
from torch.utils import _pytree as pytree

import rankopt
from rankopt.errors import FormatError, OutputError, StageError
from rankopt.identity import program_hash
from rankopt.ranker import Ranker
from rankopt.state import State, Version


def small(seed: int = 0, **options: Any) -> Ranker:
    torch.manual_seed(seed)
    return rankopt.optimize(Small().eval(), ["user_*"], example_inputs=example_rows(), **options)


@pytest.fixture(autouse=True)
def as_served() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def shared() -> Ranker:
    """A ranker whose weights no test changes."""
    return small()


@pytest.fixture
def ranker() -> Ranker:
    return small()


CONTEXT = {"user_id": torch.tensor([7])}
TARGET = {"item_id": torch.arange(9), "x": torch.linspace(-1, 1, 36).reshape(9, 4)}


def stored(state: State) -> State:
    return State.from_bytes(state.to_bytes())


# ------------------------------------------------------------------------------------------------------ a value


def test_it_is_a_dict_of_named_tensors(shared: Ranker) -> None:
    state = shared.context_stage(CONTEXT)
    assert isinstance(state, dict)
    assert list(state) == [tensor.name for tensor in shared.stages.state]
    assert state.nbytes == sum(tensor.bytes for tensor in shared.stages.state)
    assert state.version == shared.context_stage({"user_id": torch.tensor([8])}).version
    assert state.version.weights == shared.weights_hash()


def test_what_moves_tensors_in_containers_knows_it(shared: Ranker) -> None:
    state = shared.context_stage(CONTEXT)
    for other in (pytree.tree_map(torch.clone, state), state.to("cpu")):
        assert isinstance(other, State)
        assert other.version == state.version
        assert torch.equal(shared.candidate_stage(other, TARGET), shared(CONTEXT, TARGET))


@pytest.mark.parametrize("through", [stored, lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy])
def test_a_state_that_was_stored_gives_the_same_scores(shared: Ranker, through: Any) -> None:
    state = shared.context_stage(CONTEXT)
    back = through(state)
    assert back.version == state.version
    assert torch.equal(shared.candidate_stage(back, TARGET), shared(CONTEXT, TARGET))


def test_tensors_that_share_memory_and_scalars_are_stored(tmp_path: Path) -> None:
    request = request_of(packed(), 4)
    state = packed().context_stage(request.context)
    state.save(tmp_path / "state.safetensors")
    back = State.load(tmp_path / "state.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    both = State({"a": torch.arange(4.0), "b": torch.arange(4.0).bool()}, state.version)
    both["c"], both["d"] = both["a"].view(2, 2).t(), torch.tensor(2.0)
    assert torch.equal(stored(both)["c"], both["c"])
    assert stored(both)["d"].shape == ()
    assert stored(both)["b"].dtype is torch.bool


def test_other_programs_read_the_file(shared: Ranker, tmp_path: Path) -> None:
    state = shared.context_stage(CONTEXT)
    state.save(tmp_path / "state.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())
    with safetensors.safe_open(tmp_path / "state.safetensors", "pt") as file:
        facts = file.metadata()
    assert facts == {
        "rankopt": rankopt.__version__,
        "program": program_hash(shared.stages),
        "weights": shared.weights_hash(),
    }


def test_nothing_is_overwritten_unasked(shared: Ranker, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_text("precious")
    state = shared.context_stage(CONTEXT)
    with pytest.raises(OutputError, match="it exists"):
        state.save(path)
    assert path.read_text() == "precious"
    state.save(path, overwrite=True)
    assert State.load(path).version == state.version


@pytest.mark.parametrize("content", [b"", b"a shopping list", b"\xff" * 40, None])
def test_a_file_that_is_no_state(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"state.safetensors cannot be read(.|\n)*fix"):
        State.load(path)


def test_tensors_of_an_unknown_model(shared: Ranker, tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    safetensors.torch.save_file(dict(shared.context_stage(CONTEXT)), path)
    with pytest.raises(FormatError, match=r"does not say which model(.|\n)*load_file"):
        State.load(path)
    scores = shared.candidate_stage(safetensors.torch.load_file(path), TARGET)
    assert torch.equal(scores, shared(CONTEXT, TARGET))


# ------------------------------------------------------------------------------------------------------ whose it is


def test_the_version_survives_saving(shared: Ranker, tmp_path: Path) -> None:
    shared.save(tmp_path / "ranker.pt2")
    loaded = rankopt.load(tmp_path / "ranker.pt2")
    state = stored(shared.context_stage(CONTEXT))
    assert torch.equal(loaded.candidate_stage(state, TARGET), shared(CONTEXT, TARGET))
    assert loaded.context_stage(CONTEXT).version == state.version


def test_a_loaded_ranker_need_not_hash(shared: Ranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.save(tmp_path / "ranker.pt2")
    loaded = rankopt.load(tmp_path / "ranker.pt2")
    monkeypatch.setattr("rankopt.weights.fingerprint", lambda _: pytest.fail("hashed"))
    loaded.candidate_stage(stored(loaded.context_stage(CONTEXT)), TARGET)


def test_no_call_waits_for_a_hash(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankopt.weights.fingerprint", lambda _: pytest.fail("hashed"))
    ranker.candidate_stage(ranker.context_stage(CONTEXT), TARGET)


@pytest.mark.parametrize("known", [True, False])
def test_new_weights_refuse_the_states_of_the_old(ranker: Ranker, known: bool) -> None:
    state = ranker.context_stage(CONTEXT)
    if known:
        assert state.version.weights == ranker.weights_hash()
    ranker.load_original_state_dict(Small().state_dict())
    expected = "made by other weights" if known else "have changed since"
    with pytest.raises(StageError, match=rf"{expected}(.|\n)*expected(.|\n)*fix: run context_stage"):
        ranker.candidate_stage(state, TARGET)
    ranker.candidate_stage(ranker.context_stage(CONTEXT), TARGET)


@pytest.mark.parametrize("name", ["users.weight", "items.weight", "output.bias"])
def test_a_weight_that_is_changed_in_place(ranker: Ranker, name: str) -> None:
    old = stored(ranker.context_stage(CONTEXT))
    ranker.get_parameter_or_buffer(name).add_(1)
    with pytest.raises(StageError, match=r"made by other weights(.|\n)*expected: sha256:(.|\n)*found: sha256:"):
        ranker.candidate_stage(old, TARGET)
    ranker.get_parameter_or_buffer(name).sub_(1)
    ranker.refresh()
    ranker.candidate_stage(ranker.context_stage(CONTEXT), TARGET)


def test_other_weights_of_the_same_program(shared: Ranker) -> None:
    other = small(seed=1)
    assert program_hash(other.stages) == program_hash(shared.stages)
    with pytest.raises(StageError, match="made by other weights"):
        other.candidate_stage(shared.context_stage(CONTEXT), TARGET)


def test_another_program_of_the_same_weights() -> None:
    one, other = small(passes=[]), small(passes=[])
    state = one.context_stage(CONTEXT)
    other.candidate_stage(state, TARGET)
    (name,) = state
    foreign = State(state, Version("sha256:0", state.version.weights))
    with pytest.raises(StageError, match=r"made by another program(.|\n)*found: sha256:0"):
        other.candidate_stage(foreign, TARGET)
    assert name.startswith("state_")


def test_a_ranker_that_is_gone(shared: Ranker) -> None:
    other = small()
    state, read = other.context_stage(CONTEXT), other.context_stage(CONTEXT)
    assert read.version
    unread = State(state, type(state.made_by)())
    with pytest.raises(StageError, match="or are gone"):
        shared.candidate_stage(unread, TARGET)
    del other
    shared.candidate_stage(read, TARGET)


@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # torch copies its own trees
def test_a_copy_of_a_ranker_takes_its_states(ranker: Ranker) -> None:
    state = ranker.context_stage(CONTEXT)
    twin = copy.deepcopy(ranker)
    twin.candidate_stage(state, TARGET)
    twin.get_parameter_or_buffer("users.weight").add_(1)
    with pytest.raises(StageError, match="other weights"):
        ranker.candidate_stage(twin.context_stage(CONTEXT), TARGET)


def test_several_plans() -> None:
    ranker = small(candidates=(1, 20_000))
    assert len(ranker.interface.ranges) > 1
    for n in (1, 20_000):
        alone = ranker.at(n)
        state = stored(ranker.context_stage(CONTEXT, candidates=n))
        for taker in (ranker, alone):
            torch.testing.assert_close(taker.candidate_stage(state, TARGET), ranker(CONTEXT, TARGET))


def test_many_requests(shared: Ranker) -> None:
    context = {"user_id": torch.tensor([7, 8])}
    target = {name: tensor[:8].reshape(2, 4, *tensor.shape[1:]) for name, tensor in TARGET.items()}
    state = shared.many.context_stage(context)
    scores = shared.many.candidate_stage(stored(state), target)
    assert torch.equal(scores, shared.many(context, target))
    other = small(seed=1)
    with pytest.raises(StageError, match="made by other weights"):
        other.many.candidate_stage(state, target)
    for taker, given in ((shared, state), (shared.many, shared.context_stage(CONTEXT))):
        with pytest.raises(StageError, match=r"does not fit(.|\n)*expected: \["):
            taker.candidate_stage(given, target if taker is shared.many else TARGET)


def test_the_state_of_one_request_is_none_of_many() -> None:
    request = request_of(packed(), 4)  # with a scalar in its state
    target = {name: tensor.unsqueeze(0) if tensor.dim() else tensor for name, tensor in request.target.items()}
    with pytest.raises(StageError, match="does not fit"):
        packed().many.candidate_stage(packed().context_stage(request.context), target)


def test_compilers_see_plain_tensors(shared: Ranker) -> None:
    state = torch.compile(shared.context_stage, backend="eager", fullgraph=True)(CONTEXT)
    assert type(state) is dict
    compiled = torch.compile(shared.candidate_stage, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(shared.context_stage(CONTEXT), TARGET), shared(CONTEXT, TARGET))


# ------------------------------------------------------------------------------------------------------ what it holds


def first(tensors: dict[str, Tensor], change: Any) -> dict[str, Tensor]:
    name, *_ = tensors
    return tensors | {name: change(tensors[name])}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda s: first(s, lambda x: x[..., :-1]), r"expected: \[.*\n  found: \["),
        (lambda s: first(s, lambda x: x.unsqueeze(0)), r"expected: \[.*\n  found: \[1, "),
        (lambda s: first(s, torch.Tensor.double), r"expected: .*float32.*\n  found: .*float64"),
        (lambda s: first(s, lambda x: x.to("meta")), r"expected: .* on cpu\n  found: .* on meta"),
        (lambda s: s | {"extra": torch.ones(1)}, r"missing \[\], unknown \['extra'\]"),
        (lambda s: {}, r"missing \['state_"),
    ],
)
@pytest.mark.parametrize("is_plain", [True, False])
def test_tensors_that_do_not_fit(shared: Ranker, change: Any, found: str, is_plain: bool) -> None:
    state = shared.context_stage(CONTEXT)
    changed = change(dict(state))
    with pytest.raises(StageError, match=found):
        shared.candidate_stage(changed if is_plain else State(changed, state.made_by), TARGET)


def test_a_converted_ranker_takes_its_own_states() -> None:
    class Ids(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = torch.nn.Embedding(9, 4), torch.nn.Embedding(9, 4)

        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            return (torch.tanh(self.users(user)) * self.items(item)).sum(1)

    rows = (torch.arange(9), torch.arange(9))
    ranker = rankopt.optimize(Ids().eval(), ["user"], example_inputs=rows).double()
    state = ranker.context_stage({"user": torch.tensor([3])})
    assert ranker.candidate_stage(state, {"item": torch.arange(5)}).dtype is torch.float64


# ------------------------------------------------------------------------------------------------------ chunks


def test_candidates_in_chunks() -> None:
    torch.manual_seed(3)
    rows = tuple(row.double() if row.is_floating_point() else row for row in example_rows())
    model = Small().eval().double()
    ranker = rankopt.optimize(model, ["user_*"], example_inputs=rows)
    target = {"item_id": torch.randint(50, (5000,)), "x": torch.randn(5000, 4, dtype=torch.float64)}
    state = ranker.context_stage(CONTEXT)
    chunks = [{name: tensor[i : i + 500] for name, tensor in target.items()} for i in range(0, 5000, 500)]
    scores = torch.cat([ranker.candidate_stage(state, chunk) for chunk in chunks])
    expected = model(CONTEXT["user_id"].expand(5000), target["item_id"], target["x"])
    for one_call in (ranker(CONTEXT, target), expected):
        torch.testing.assert_close(scores, one_call, rtol=1e-9, atol=1e-9)
