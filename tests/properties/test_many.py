"""Random programs give the same numbers for many requests in one call as for one request at a time."""

from __future__ import annotations

import os

import pytest
from properties.checking import Mismatch
from properties.many import assert_same_as_single_calls
from properties.recorder import Recorder, aten
from properties.regressions import REGRESSIONS, Program
from properties.searching import require
from properties.turns import SHARING

from rankopt.many import derivation
from rankopt.plan import FULL

PROGRAMS = int(os.environ.get("RANKOPT_FUZZ_EXAMPLES", "2000")) // 20


def test_random_programs() -> None:
    """Each program under one policy in turn."""
    require(range(PROGRAMS), lambda program, seed: assert_same_as_single_calls(program, SHARING[seed % len(SHARING)]))


@pytest.mark.parametrize("program", REGRESSIONS, ids=lambda program: program.__name__)
def test_regressions(program: Program) -> None:
    r = Recorder()
    recorded = r.finish(program(r))
    for policy in SHARING:
        assert_same_as_single_calls(recorded, policy, scale=10.0)


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """An op that mixes rows, and is taken for one that does not, is found."""
    r = Recorder()
    recorded = r.finish([r.call(aten.cumsum.default, r.call(aten.add.Tensor, r.context(2), r.target(2)), 0)])
    assert_same_as_single_calls(recorded, FULL)
    monkeypatch.setattr(derivation, "keeps_rows_apart", lambda expr: True)
    with pytest.raises(Mismatch, match="off by"):
        assert_same_as_single_calls(recorded, FULL)
