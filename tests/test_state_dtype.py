"""A state that is rounded to float16 or bfloat16: smaller, measured, and refused where a number does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import packed, request_of
from small_ranker import Small, example_rows
from torch import Tensor, nn

import rankopt
from rankopt.errors import ExportError, InputError, StageError, VerificationError
from rankopt.ranker import Ranker
from rankopt.report.tree import Report


class Pick(nn.Module):
    """A state of floats, of integers, of a large number, and of an infinity that the model makes itself."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(9, 8), nn.Embedding(9, 8)
        self.register_buffer("mask", torch.tensor([0.0] * 7 + [float("-inf")]))
        with torch.no_grad():
            self.users.weight.mul_(scale)

    def forward(self, user: Tensor, place: Tensor, item: Tensor) -> Tensor:
        weights = torch.softmax(self.users(user) + self.mask, 1)
        return (weights * self.items(item)).sum(1) + self.users(user)[:, 0] + (item == place)


ROWS = (torch.arange(9), torch.arange(9), torch.arange(9))


def pick(scale: float = 1.0, **options: Any) -> Ranker:
    torch.manual_seed(0)
    return rankopt.optimize(Pick(scale).eval(), ["user", "place"], example_inputs=ROWS, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_floats_are_rounded_and_the_program_stays_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    exact = packed()
    ranker = exact.with_state_dtype(dtype)
    request = request_of(ranker, 40)
    state, before = ranker.context_stage(request.context), exact.context_stage(request.context)
    assert {tensor.dtype for tensor in state.values()} == {dtype}
    assert 2 * state.nbytes == before.nbytes
    found = ranker.verify(candidates=(1, 300))
    assert found.identical
    assert found.agreement.error64 < 1e-9
    assert 0 < found.agreement.rewritten_error < 16 * torch.finfo(dtype).eps
    with pytest.raises(StageError, match=r"another program|not one of this ranker"):
        ranker.candidate_stage(before, request.target)
    ranker.save(tmp_path / "ranker.pt2")
    loaded = rankopt.load(tmp_path / "ranker.pt2")
    assert loaded.state_dtype is dtype
    again = loaded.outputs(state, request.target)
    for one, other in zip(ranker.outputs(state, request.target), again, strict=True):
        assert torch.equal(one, other)


def test_integers_stay() -> None:
    ranker = pick(state_dtype=torch.bfloat16)
    state = ranker.context_stage({"user": torch.tensor([1]), "place": torch.tensor([2])})
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16, torch.int64}


def test_the_report_states_the_error(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"example_inputs": example_rows(), "state_dtype": torch.float16}
    ranker = rankopt.optimize(Small().eval(), ["user_*"], **options)
    report = ranker.report
    assert report is not None
    assert report.verification is not None
    assert report.verification.identical
    rounding = report.rounding
    assert rounding is not None
    assert rounding.exact_bytes == 2 * report.state_bytes
    assert rounding.original_error < rounding.error < 1e-2
    assert rounding.candidates == (1, 64, 1000)
    text = " ".join(str(report).split())
    assert f"NOT exact, state in float16: scores off by up to {rounding.absolute_error:.1e}" in text
    assert "State: 256 B instead of 512 B per request" in text
    data = report.to_json()
    assert data["state_bytes"] == 256
    assert data["flops_saved_per_state_byte"] == report.saved_per_byte
    assert Report.from_json(data) == report
    assert replace(report, rounding=None) != report


def test_many_requests_and_several_plans() -> None:
    torch.manual_seed(0)
    options = {"example_inputs": example_rows(), "candidates": (1, 20_000), "passes": ["linear", "concatenation"]}
    ranker = rankopt.optimize(Small().eval(), ["user_*"], state_dtype=torch.float16, **options)
    assert len(ranker.interface.ranges) > 1
    context = {"user_id": torch.tensor([3, 4])}
    target = {"item_id": torch.arange(6).reshape(2, 3), "x": torch.ones(2, 3, 4)}
    alone = [ranker({"user_id": context["user_id"][b : b + 1]}, {n: x[b] for n, x in target.items()}) for b in (0, 1)]
    torch.testing.assert_close(ranker.many(context, target), torch.stack(alone), rtol=1e-3, atol=1e-4)
    for n in (1, 20_000):
        assert ranker.at(n).state_dtype is torch.float16


# ------------------------------------------------------------------------------------------------------ refusals


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        StageError, match=r"does not fit into torch.float16: 'state_.*(.|\n)*up to 6.55e\+04(.|\n)*bfloat"
    ):
        pick(1e6, state_dtype=torch.float16)


def test_each_request_is_looked_at() -> None:
    ranker = pick(state_dtype=torch.float16)
    context = {"user": torch.tensor([1]), "place": torch.tensor([2])}
    both = {"user": torch.tensor([1, 2]), "place": torch.tensor([2, 2])}
    ranker(context, {"item": torch.arange(3)})
    ranker.many.context_stage(both)
    with torch.no_grad():
        ranker.get_parameter_or_buffer("users.weight")[1] = 1e5
    for call in (lambda: ranker(context, {"item": torch.arange(3)}), lambda: ranker.context_stage(context)):
        with pytest.raises(StageError, match=r"does not fit into torch\.float16"):
            call()
    with pytest.raises(StageError, match=r"does not fit into torch\.float16"):
        ranker.many.context_stage(both)


def test_infinities_of_the_models_own_are_no_overflow() -> None:
    class Masked(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.maximum(a.masked_fill(a < 0, float("-inf")), b).sum(1)

    rows = (torch.randn(6, 4), torch.randn(6, 4))
    ranker = rankopt.optimize(Masked().eval(), ["a"], example_inputs=rows, state_dtype=torch.float16)
    context = {"a": torch.tensor([[-1.0, 1.0, -1.0, 2.0]])}
    assert any(bool(tensor.isinf().any()) for tensor in ranker.context_stage(context).values())
    assert ranker(context, {"b": torch.randn(3, 4)}).isfinite().all()


def test_an_error_beyond_rounding_is_refused() -> None:
    class Amplified(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.sin(1e3 * torch.tanh(a) + b).sum(1)

    rows = (torch.rand(6, 4), torch.rand(6, 4))
    with pytest.raises(
        VerificationError, match=r"changes the scores by more than its rounding(.|\n)*expected: an error"
    ):
        rankopt.optimize(Amplified().eval(), ["a"], example_inputs=rows, state_dtype=torch.float16, passes=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_other_types(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"cannot be kept in(.|\n)*torch.float16, torch.bfloat16"):
        pick(state_dtype=dtype)


def test_a_state_is_rounded_once() -> None:
    ranker = packed().with_state_dtype(torch.float16)
    assert ranker.with_state_dtype(torch.float16) is ranker
    with pytest.raises(InputError, match="rounded already"):
        ranker.with_state_dtype(torch.bfloat16)


# ------------------------------------------------------------------------------------------------------ export


def test_onnx_stages(tmp_path: Path) -> None:
    done = packed().export(tmp_path / "fast.onnx", stages=True, state_dtype=torch.float16)
    assert done.state_dtype is torch.float16
    assert done.agreement.identical()
    assert 1e-5 < done.agreement.rewritten_error < 1e-2


def test_numpy_has_no_bfloat16(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"bfloat16, which numpy does not have(.|\n)*fix: state_dtype float16"):
        packed().export(tmp_path / "fast.onnx", stages=True, state_dtype=torch.bfloat16)
    assert list(tmp_path.iterdir()) == []
