"""The rule table: which law applies to which ATen op.

A rule is an ordinary function over deferred values, registered under the ops it speaks for. It either returns the
op's result as a deferred value or raises `Refusal` with the reason; a refused op is computed as the model wrote it, on
tiled rows. A missing rule therefore costs speed, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rankopt.errors import DuplicateRuleError

Target = Callable[..., Any]
RuleFunction = TypeVar("RuleFunction", bound=Callable[..., Any])


class Refusal(Exception):
    """Raised by a rule that does not hold for its operands. The message is the reason shown in reports."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One law for some ops. `family` is the pass to which it belongs."""

    name: str
    family: str
    law: str
    targets: tuple[Target, ...]
    apply: Callable[..., Any]


RULES: dict[Target, Rule] = {}


def rule(*targets: Target, law: str) -> Callable[[RuleFunction], RuleFunction]:
    """Registers the decorated function for `targets`. `law` is the equation that makes it valid.

    Raises DuplicateRuleError when an op already has a rule.
    """

    def register(function: RuleFunction) -> RuleFunction:
        family = function.__module__.rsplit(".", 1)[-1]
        name = f"{family}.{function.__name__}"
        added = Rule(name, family, law, targets, function)
        for target in targets:
            if target in RULES:
                raise DuplicateRuleError(f"{target} has the rule {RULES[target].name}; {name} would be a second one")
            RULES[target] = added
        return function

    return register


def families(rules: Sequence[Rule] | None = None) -> tuple[str, ...]:
    """The names of the passes, in the order of their registration."""
    return tuple(dict.fromkeys(rule.family for rule in (rules if rules is not None else RULES.values())))
