"""Choices are made again as they were, and a program that fails is shrunk to what makes it fail."""

from __future__ import annotations

import pytest
from properties.choices import Choices
from properties.recorder import Recorded, Recorder, aten
from properties.searching import Failed, attempt, draw, failure_of, require
from properties.turns import EVERY_POLICY, Turn


def has_softmax(program: Recorded) -> None:
    if str(aten.softmax.int) in program.code:
        raise ValueError("a softmax")


def test_a_seed_is_a_program() -> None:
    programs = [draw(Recorder(), Choices(seed)).code for seed in (5, 5, 6)]
    assert programs[0] == programs[1] != programs[2]


def test_choices_are_made_again() -> None:
    for seed in range(20):
        first = Choices(seed)
        code = draw(Recorder(), first).code
        again = Choices(again=first.made)
        assert draw(Recorder(), again).code == code
        assert again.made == first.made


def test_choices_that_no_longer_fit_are_the_highest_or_the_lowest() -> None:
    c = Choices(again=[5])
    assert [c.integer(2, 4), c.integer(2, 4), c.integer(7, 7)] == [4, 2, 7]
    assert c.made == [2, 0]
    assert c.spent


def test_what_fails_is_shrunk_to_what_makes_it_fail() -> None:
    failures = [failure for seed in range(40) if (failure := failure_of(seed, has_softmax))]
    assert failures
    for failure in failures:
        calls = [line for line in failure.code.splitlines() if "r.call" in line]
        assert len(calls) <= 2, failure.code
        assert failure.code.count("\n") <= 5, failure.code
        assert str(failure) == f"ValueError: a softmax\n{failure.code}"


def test_shrinking_keeps_the_type_of_the_error() -> None:
    def check(program: Recorded) -> None:
        if "softmax" in program.code:
            raise KeyError("softmax")
        assert len(program.code) < 100

    seed = next(seed for seed in range(100) if isinstance((f := attempt(Choices(seed), check)) and f.error, KeyError))
    failure = failure_of(seed, check)
    assert failure is not None
    assert isinstance(failure.error, KeyError)


def test_a_failure_is_told_with_its_seed_and_code() -> None:
    def check(program: Recorded, seed: int) -> None:
        if seed == 3:
            raise ValueError(f"three\n{program.code}")

    require(range(3), check)
    with pytest.raises(Failed, match=r"seed 3: ValueError: three\nw0 = r\.") as raised:
        require(range(9), check)
    assert str(raised.value).count("return [") == 1


def test_every_policy_meets_every_number_of_candidates_in_stages_and_at_once() -> None:
    turns = [Turn.of(seed) for seed in range(len(EVERY_POLICY) * 60)]
    assert len({(turn.policy, turn.candidates, turn.staged) for turn in turns}) == len(EVERY_POLICY) * 3 * 2
    assert len({(turn.policy, turn.candidates) for turn in turns if turn.many}) == len(EVERY_POLICY) * 3
