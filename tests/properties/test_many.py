"""Random programs give the same numbers for many requests in one call as for one request at a time."""

from __future__ import annotations

import os
from itertools import cycle

import pytest
from hypothesis import HealthCheck, given, settings
from properties.checking import Mismatch
from properties.many import assert_same_as_single_calls
from properties.recorder import Recorded, Recorder, aten
from properties.strategy import programs

from rankopt.many import derivation
from rankopt.plan import FULL, POLICIES, other_forms

PROGRAMS = int(os.environ.get("RANKOPT_FUZZ_EXAMPLES", "2000")) // 20


def test_random_programs() -> None:
    """Each program under one policy in turn."""
    turns = cycle([*POLICIES, *other_forms(FULL)])

    @settings(
        max_examples=PROGRAMS, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(programs())
    def check(program: Recorded) -> None:
        assert_same_as_single_calls(program, next(turns))

    check()


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """An op that mixes rows, and is taken for one that does not, is found."""
    r = Recorder()
    recorded = r.finish([r.call(aten.cumsum.default, r.call(aten.add.Tensor, r.context(2), r.target(2)), 0)])
    assert_same_as_single_calls(recorded, FULL)
    monkeypatch.setattr(derivation, "keeps_rows_apart", lambda expr: True)
    with pytest.raises(Mismatch, match="off by"):
        assert_same_as_single_calls(recorded, FULL)
