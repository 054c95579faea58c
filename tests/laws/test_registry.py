"""Every law has a case in which it fires, and one in which it refuses, if it can."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest
from laws.harness import Case

from rankopt.errors import DuplicateRuleError
from rankopt.passes import NAMES
from rankopt.program import aten
from rankopt.rules import RULES, Rule, families, rule

UNREACHED = {
    "concatenation.chunk": "torch.export cannot cut rows into chunks of unknown size",
    "concatenation.unbind": "torch.export needs the number of rows to take them apart",
    "data_movement.same": "capture refuses training mode",
    "data_movement.matrix_transpose": "inputs are real",
    "softmax.softmax_decomposed": "capture keeps softmax whole, and CPUs do not change its type",
    "opaque.random": "capture refuses what is left to chance",
}
"""Refusals that no captured model leads to."""

NEVER_FIRES = {
    "opaque.random": "it only explains",
    "normalization.batch_norm_decomposed": "capture keeps batch norm whole",
}


def cases() -> list[Case]:
    modules = [import_module(f"laws.test_{name}") for name in NAMES]
    return [case for module in modules for name in ("CASES", "LOOKUPS") for case in getattr(module, name, [])]


ALL = {rule.name: rule for rule in RULES.values()}


@pytest.mark.parametrize("found", ALL.values(), ids=lambda found: found.name)
def test_every_rule_has_cases(found: Rule) -> None:
    own = [case for case in cases() if case.rule == found.name]
    if found.name not in NEVER_FIRES:
        assert any(not case.refuses for case in own), f"no case in which {found.name} fires"
    can_refuse = "raise Refusal" in inspect.getsource(found.apply)
    if can_refuse and found.name not in UNREACHED:
        assert any(case.refuses for case in own), f"no case in which {found.name} refuses"


def test_every_rule_states_its_law() -> None:
    assert all(found.law and found.apply.__doc__ for found in ALL.values())
    assert families() == tuple(dict.fromkeys(rule.family for rule in RULES.values()))
    assert set(families()) == set(NAMES)


def test_an_op_has_one_rule() -> None:
    with pytest.raises(DuplicateRuleError, match=r"aten.relu.default has the rule elementwise.function"):
        rule(aten.relu.default, law="none")(lambda w, x: x)
