"""Random rankers have the scores of their models; the fuzzer finds a wrong law, and shrinks what it found."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest
import torch
from properties.checking import Mismatch
from rankers.checks import check
from rankers.drawing import draw, shrunk
from rankers.model import Description, Input, Step
from rankers.regressions import REGRESSIONS

from rankopt import algebra

RANKERS = int(os.environ.get("RANKOPT_FUZZ_RANKERS", "6"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: threads would cost more than they bring. What layers warn of is not the subject."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("seed", range(RANKERS))
def test_random_rankers(seed: int) -> None:
    given = draw(seed, longest=5)
    try:
        check(given, turn=seed)
    except Mismatch as found:
        found.add_note(repr(given))
        raise


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions(name: str) -> None:
    turn, given = REGRESSIONS[name]
    check(given, turn)


def test_a_description_prints_as_the_code_that_makes_it() -> None:
    given = draw(3)
    assert eval(repr(given), {"Description": Description, "Input": Input, "Step": Step, "torch": torch}) == given


def test_a_wrong_law_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum with a wrong sign is found in a ranker of many blocks, and what is left of it is small."""
    given = Description(
        inputs=(Input("dense", "context", 4), Input("dense", "target", 4), Input("ids", "target")),
        steps=(
            Step("embed", (2,), {"width": 4, "padding": 0, "tied": False}),
            Step("joined", (0, 1)),
            Step("tower", (4,), {"layers": 2, "norm": "batch", "act": "dice"}),
            Step("joined", (5, 3)),
        ),
        output="dict",
    )
    right = algebra.add_all
    monkeypatch.setattr(algebra, "add_all", lambda w, nodes: right(w, [nodes[0], algebra.scale(nodes[1], -1.0)]))

    def fails(of: Description) -> bool:
        try:
            check(of)
        except Exception as error:
            return isinstance(error, Mismatch)
        return False

    assert fails(given)
    small = shrunk(given, fails, patience=20)
    assert fails(small)
    assert len(small.steps) <= 1
    assert len(small.inputs) == 2
    assert small.output == "scores"
