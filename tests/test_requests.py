import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rankopt.errors import InputError
from rankopt.requests import Request, draw_request, draw_rows, split_rows, tile
from rankopt.selectors import InputRole, Role

ROLES = (
    InputRole("item", Role.TARGET),
    InputRole("x", Role.PACKED, context_columns=(0, 3), target_columns=(1, 2, 4)),
    InputRole("history", Role.CONTEXT),
    InputRole("temperature", Role.CONTEXT),
    InputRole("price", Role.TARGET),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(rows: int = 20) -> dict[str, Tensor]:
    g = generator(5)
    return {
        "item": torch.randint(3, 90, (rows,), generator=g),
        "x": torch.randint(0, 10, (rows, 5), generator=g) * torch.tensor([1, 10, 100, 1000, 10000]),
        "history": torch.randint(0, 30, (rows, 4), generator=g),
        "temperature": torch.tensor(0.7),
        "price": torch.randn(rows, 2, generator=g),
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("candidates", [0, 1, 7])
def test_a_drawn_request_has_one_context_and_n_targets(candidates: int) -> None:
    request = draw_request(ROLES, examples(), candidates, generator())
    shapes = {name: tuple(value.shape) for name, value in request.context.items()}
    assert shapes == {"x": (1, 2), "history": (1, 4), "temperature": ()}
    shapes = {name: tuple(value.shape) for name, value in request.target.items()}
    assert shapes == {"item": (candidates,), "x": (candidates, 3), "price": (candidates, 2)}
    assert request.candidates == candidates
    assert request.context["temperature"] == 0.7
    for name, value in {**request.context, **request.target}.items():
        assert value.dtype == examples()[name].dtype


def test_the_generator_decides() -> None:
    first, again, other = (draw_request(ROLES, examples(), 9, generator(seed)) for seed in (1, 1, 2))
    assert equal(first.context, again.context)
    assert equal(first.target, again.target)
    assert not equal(first.target, other.target)


def test_drawing_from_fewer_examples_than_candidates() -> None:
    drawn = draw_request(ROLES, examples(2), 500, generator())
    assert drawn.candidates == 500


@given(
    st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.float32, torch.bfloat16, torch.float16]),
    st.integers(1, 5),
    st.integers(0, 30),
    st.integers(0, 1000),
)
@settings(max_examples=60)
def test_every_column_stays_in_its_observed_range(dtype: torch.dtype, observed: int, rows: int, seed: int) -> None:
    example = (torch.rand(observed, 3, 2, generator=generator(seed)) * 200).to(dtype)
    drawn = draw_rows(example, rows, generator(seed))
    assert drawn.shape == (rows, 3, 2)
    assert drawn.dtype == dtype
    assert bool((drawn >= example.amin(0)).all())
    assert bool((drawn <= example.amax(0)).all())


def test_integers_fill_the_range_between_the_observed_ids() -> None:
    drawn = draw_rows(torch.tensor([10, 20]), 2000, generator())
    assert set(drawn.tolist()) == set(range(10, 21))


def test_whole_numbers_in_a_float_tensor_stay_whole() -> None:
    example = torch.tensor([[1.0, 0.5], [9.0, 3.0], [4.0, 2.0]])
    drawn = draw_rows(example, 500, generator())
    assert set(drawn[:, 0].tolist()) == {float(number) for number in range(1, 10)}
    assert not bool((drawn[:, 1] == drawn[:, 1].floor()).all())


def test_floats_have_the_observed_mean_and_spread() -> None:
    example = torch.randn(1000, 2, generator=generator()) * torch.tensor([0.1, 3.0]) + 5
    drawn = draw_rows(example, 4000, generator(1))
    torch.testing.assert_close(drawn.mean(0), example.mean(0), atol=0.1, rtol=0.05)
    torch.testing.assert_close(drawn.std(0), example.std(0), atol=0.0, rtol=0.1)


def test_bools_have_the_observed_frequency_at_each_position() -> None:
    example = torch.rand(400, 3, generator=generator()) < torch.tensor([0.0, 0.2, 1.0])
    drawn = draw_rows(example, 4000, generator(1))
    assert drawn.dtype == torch.bool
    torch.testing.assert_close(drawn.float().mean(0), example.float().mean(0), atol=0.03, rtol=0.0)


def test_half_of_the_rows_are_example_rows_and_half_are_new() -> None:
    example = torch.randint(0, 10**6, (8, 12), generator=generator())
    drawn = draw_rows(example, 1000, generator(1))
    copied = (drawn[:, None] == example).all(-1).any(1).float().mean()
    assert 0.4 < copied < 0.6


def test_copied_rows_are_the_same_example_row_in_every_input() -> None:
    roles = [InputRole(name, Role.TARGET) for name in ("history", "length", "mask")]
    length = torch.tensor([1, 2, 5, 7, 9])
    mask = torch.arange(10) < length[:, None]
    history = torch.randint(1, 10**6, (5, 10), generator=generator()) * mask
    request = draw_request(roles, {"history": history, "length": length, "mask": mask}, 400, generator(1))
    drawn = request.target
    consistent = (drawn["mask"] == (torch.arange(10) < drawn["length"][:, None])).all(1)
    consistent &= ((drawn["history"] > 0) == drawn["mask"]).all(1)
    assert 0.4 < consistent.float().mean() < 0.9


def test_additive_masks_come_whole() -> None:
    example = torch.tensor([[0.0, -math.inf, -math.inf], [0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]])
    drawn = draw_rows(example, 100, generator())
    assert bool((drawn[:, None] == example).all(-1).any(1).all())
    assert len(drawn.unique(dim=0)) == 3


def test_hashed_ids_over_all_of_int64() -> None:
    example = torch.tensor([-(2**63), -5, 17, 2**63 - 1])
    drawn = draw_rows(example, 100, generator())
    assert set(drawn.tolist()) == set(example.tolist())


def test_there_must_be_rows_to_draw_from() -> None:
    assert draw_rows(torch.empty(0, 3), 0, generator()).shape == (0, 3)
    with pytest.raises(InputError, match="nothing to draw"):
        draw_rows(torch.empty(0, 3), 2, generator())


@pytest.mark.parametrize("candidates", [0, 1, 7])
def test_tile_repeats_the_context_and_puts_packed_columns_back(candidates: int) -> None:
    request = draw_request(ROLES, examples(), candidates, generator())
    rows = tile(ROLES, request)
    assert list(rows) == [role.name for role in ROLES]
    assert rows["x"].shape == (candidates, 5)
    assert torch.equal(rows["x"][:, [0, 3]], request.context["x"].expand(candidates, 2))
    assert torch.equal(rows["x"][:, [1, 2, 4]], request.target["x"])
    assert torch.equal(rows["history"], request.context["history"].expand(candidates, 4))
    assert rows["history"].is_contiguous()
    assert torch.equal(rows["item"], request.target["item"])
    assert rows["temperature"] == 0.7


@pytest.mark.parametrize("candidates", [1, 7])
def test_split_rows_reverses_tile(candidates: int) -> None:
    request = draw_request(ROLES, examples(), candidates, generator())
    again = split_rows(ROLES, tile(ROLES, request), check=True)
    assert equal(again.context, request.context)
    assert equal(again.target, request.target)


def test_no_rows_split_into_a_context_that_fits() -> None:
    request = draw_request(ROLES, examples(), 0, generator())
    again = split_rows(ROLES, tile(ROLES, request), check=True)
    assert equal(again.target, request.target)
    assert {name: value.shape for name, value in again.context.items()} == {
        name: value.shape for name, value in request.context.items()
    }
    assert equal(tile(ROLES, again), tile(ROLES, request))


@pytest.mark.parametrize(("name", "column"), [("history", 2), ("x", 3)])
def test_a_context_that_differs_is_found_when_asked(name: str, column: int) -> None:
    rows = tile(ROLES, draw_request(ROLES, examples(), 7, generator()))
    rows[name][4, column] += 1
    assert split_rows(ROLES, rows).candidates == 7
    with pytest.raises(InputError, match=f"context input '{name}' differs .*: row 4 is not row 0"):
        split_rows(ROLES, rows, check=True)


def test_a_target_column_may_differ() -> None:
    rows = tile(ROLES, draw_request(ROLES, examples(), 7, generator()))
    rows["x"][4, 1] += 1
    split_rows(ROLES, rows, check=True)


def test_nan_in_the_context_equals_nan() -> None:
    roles = (InputRole("c", Role.CONTEXT), InputRole("t", Role.TARGET))
    rows = {"c": torch.tensor([math.nan, math.nan]), "t": torch.ones(2)}
    assert split_rows(roles, rows, check=True).context["c"].isnan().all()
    rows["c"][1] = 1
    with pytest.raises(InputError, match="row 1 is not row 0"):
        split_rows(roles, rows, check=True)


def request_without(part: str, name: str) -> Request:
    request = draw_request(ROLES, examples(), 3, generator())
    del getattr(request, part)[name]
    return request


def request_with(part: str, name: str, value: Tensor) -> Request:
    request = draw_request(ROLES, examples(), 3, generator())
    getattr(request, part)[name] = value
    return request


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (request_without("context", "history"), "input 'history' is missing"),
        (request_without("context", "x"), "input 'x' is missing"),
        (request_without("target", "item"), "input 'item' is missing"),
        (
            Request({"item": torch.ones(1)}, request_without("target", "item").target),
            r"input 'item' is missing.\n  given: x, price",
        ),
        (request_without("target", "x"), "input 'x' is missing"),
        (
            request_with("context", "history", torch.ones(2, 4)),
            r"'history' has shape \[2, 4\]: expected one row",
        ),
        (request_with("context", "x", torch.ones(3, 2)), r"'x' has shape \[3, 2\]: expected one row"),
        (request_with("target", "price", torch.ones(4, 2)), "must have one number of rows"),
        (request_with("target", "x", torch.ones(3, 2, dtype=torch.long)), "do not fit its columns"),
        (request_with("target", "x", torch.ones(3, 3)), "do not fit its columns"),
        (Request({"history": torch.ones(1, 4)}, {}), "no input with rows"),
    ],
)
def test_requests_that_do_not_fit(request_: Request, says: str) -> None:
    with pytest.raises(InputError, match=says):
        tile(ROLES, request_)


def test_rows_that_do_not_fit() -> None:
    rows = tile(ROLES, draw_request(ROLES, examples(), 3, generator()))
    with pytest.raises(InputError, match=r"item: 3, x: 3, history: 2, price: 3"):
        split_rows(ROLES, {**rows, "history": torch.ones(2, 4)})
    del rows["item"]
    with pytest.raises(InputError, match="input 'item' is missing"):
        split_rows(ROLES, rows)
