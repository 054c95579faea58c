"""Random programs give the same numbers after rewriting, under every policy."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from properties.checking import Mismatch, assert_same
from properties.recorder import Recorded, Recorder, aten
from properties.regressions import REGRESSIONS, Program
from properties.searching import require
from properties.turns import EVERY_POLICY, Turn

from rankopt import algebra
from rankopt.plan import FULL
from rankopt.workspace import Policy

PROGRAMS = int(os.environ.get("RANKOPT_FUZZ_EXAMPLES", "2000"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: threads would cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_random_programs() -> None:
    """Each program under one policy in turn, with the decisions for few, some or many candidates."""

    def check(program: Recorded, seed: int) -> None:
        turn = Turn.of(seed)
        assert_same(program, [turn.policy], turn.candidates, staged=turn.staged)

    require(range(PROGRAMS), check)


@pytest.mark.parametrize("program", REGRESSIONS, ids=lambda program: program.__name__)
def test_regressions(program: Program) -> None:
    r = Recorder()
    assert_same(r.finish(program(r)), EVERY_POLICY, scale=10.0)


@pytest.mark.parametrize("policy", EVERY_POLICY, ids=lambda policy: policy.name)
def test_no_candidates(policy: Policy) -> None:
    """Zero rows in, zero rows out."""
    r = Recorder()
    x = r.call(aten.cat.default, [r.context(2, 4), r.target(3, 4)], 1)
    gram = r.call(aten.matmul.default, x, r.call(aten.transpose.int, x, 1, 2))
    weights = r.call(aten.softmax.int, gram, -1)
    pooled = r.call(aten.sum.dim_IntList, r.call(aten.matmul.default, weights, x), [1])
    norm = r.call(aten.layer_norm.default, pooled, [4], None, None, 0.1)
    assert_same(r.finish([r.call(aten.linear.default, norm, r.weight(1, 4))]), [policy], row_counts=[0, 1, 3])


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law with a wrong sign is found."""
    r = Recorder()
    x = r.call(aten.cat.default, [r.context(2), r.target(2)], 1)
    recorded = r.finish([r.call(aten.linear.default, x, r.weight(3, 4))])
    right = algebra.add_all
    monkeypatch.setattr(algebra, "add_all", lambda w, nodes: right(w, [nodes[0], algebra.scale(nodes[1], -1.0)]))
    with pytest.raises(Mismatch, match="off by"):
        assert_same(recorded, [FULL])
