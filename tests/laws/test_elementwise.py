"""Elementwise functions go through concatenations part by part; arithmetic of floats stays pending."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from laws.harness import Case, Like, law_tests
from properties.checking import assert_same
from properties.recorder import Handle, Recorder
from torch import Tensor

from rankopt.passes.elementwise import FUNCTIONS
from rankopt.plan import FULL, POLICIES

aten = torch.ops.aten


def both(c: Tensor, t: Tensor) -> Tensor:
    """[R, 6, 4]"""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


ids = {"c": Like((3,), high=8), "t": Like((2,), high=8)}

CASES = [
    Case("elementwise.function", lambda c, t: both(c, t).relu(), once="relu"),
    Case("elementwise.function", lambda c, t: torch.where(both(c, t) > 0.5, both(c, t), 0.1), once="where"),
    Case("elementwise.function", lambda c, t: c.unsqueeze(2).sigmoid().maximum(t.unsqueeze(1)), once="sigmoid"),
    Case("elementwise.function", lambda c, t: both(c, t) / (both(c, t).abs() + 1), once="div"),
    Case("elementwise.div", lambda c, t: (c + t[:, :1]) / t.shape[0], refuses="the number of rows", from_rows=1),
    Case("elementwise.add", lambda c, t: both(c, t) + 0.1),
    Case("elementwise.add", lambda c, t: torch.add(c[:, :2], t, alpha=-0.5)),
    Case("elementwise.add", lambda c, t: (c + t[:, :1]) + t.shape[0], refuses="the number of rows"),
    Case("elementwise.sub", lambda c, t: c.unsqueeze(2) - t.unsqueeze(1)),
    Case("elementwise.rsub", lambda c, t: 1.1 - both(c, t)),
    Case("elementwise.neg", lambda c, t: (-both(c, t)).exp(), once="exp"),
    Case("elementwise.mul", lambda c, t: both(c, t) * both(c, t) * 0.3, once="mul"),
    Case("elementwise.mul", lambda c, t: (c[:, :2] + t) * t.shape[0], refuses="the number of rows"),
    Case("elementwise.mul", lambda c, t: both(c, t) + (1 - (both(c, t) > 0).float()) * -1e9),
    Case("elementwise.div", lambda c, t: both(c, t) / 3.0 + both(c, t) / 0.0),
    Case("elementwise.square", lambda c, t: both(c, t).square(), once="mul"),
    Case(
        "elementwise.power", lambda c, t: both(c, t) ** 2 + both(c, t).abs() ** 0.5 + both(c, t) ** 1 + both(c, t) ** 3
    ),
    Case("elementwise.cast", lambda c, t: both(c, t).long().float() + both(c, t).double() + both(c, t).to(c)),
    Case("elementwise.cast", lambda c, t: both(c, t).half(), once="_to_copy"),
    # integers and booleans: torch's own arithmetic
    Case("elementwise.add", lambda c, t: torch.cat([c, t], 1) + torch.arange(5) * 8, exact=True, **ids),
    Case("elementwise.add", lambda c, t: torch.add(c[:, :2], t, alpha=3) + 0.5, **ids),
    Case("elementwise.sub", lambda c, t: (c[:, :2] - t) * 2 - 1, exact=True, **ids),
    Case("elementwise.rsub", lambda c, t: 3 - torch.cat([c, t], 1), exact=True, **ids),
    Case("elementwise.neg", lambda c, t: -torch.cat([c, t], 1), exact=True, **ids),
    Case("elementwise.mul", lambda c, t: (c[:, :2] * t > 3) & (t == 0), exact=True, **ids),
    Case("elementwise.power", lambda c, t: torch.cat([c, t], 1) ** 2 + torch.cat([c, t], 1) ** 1.0, exact=True, **ids),
    Case("elementwise.div", lambda c, t: torch.cat([c, t], 1) / 2 + c[:, :2].sum(1, keepdim=True) // 3, **ids),
    Case("elementwise.square", lambda c, t: torch.cat([c, t], 1).square(), exact=True, **ids),
]  # fmt: skip

test_cases = law_tests(CASES)


# ------------------------------------------------------------------------------------------------------ every function

INTEGERS = ("bitwise", "logical", "__and__", "__or__", "__xor__")
CONDITIONS = ("where", "masked_fill")
EXTRA: dict[Any, tuple[Any, ...]] = {
    aten.threshold.default: (0.1, 0.2),
    aten.clamp.default: (-0.5, 0.5),
    aten.logit.default: (0.1,),
    aten.div.Scalar_mode: (0.7,),
    aten.lerp.Scalar: (0.3,),
}
KEYWORDS: dict[Any, dict[str, Any]] = {
    aten.div.Tensor_mode: {"rounding_mode": "floor"},
    aten.div.Scalar_mode: {"rounding_mode": "trunc"},
    aten.addcmul.default: {"value": 0.5},
    aten.addcdiv.default: {"value": 0.5},
}


def arguments(r: Recorder, target: Any, values: dict[str, tuple[Handle, ...]]) -> list[Any]:
    """Operands by the op's schema: tensors of different ranks, numbers for what is left."""
    name = target.__name__
    kind = "integer" if name.startswith(INTEGERS) else "positive" if needs_positive(name) else "float"
    tensors = iter(values[kind])
    found: list[Any] = []
    for argument in target._schema.arguments:
        if argument.kwarg_only or (argument.has_default_value() and target not in EXTRA):
            break
        if str(argument.type) == "Tensor":
            condition = argument.name in ("mask", "condition")
            found.append(values["condition"][0] if condition else next(tensors))
        elif len(found) and target in EXTRA:
            return [*found, *EXTRA[target]]
        else:
            found.append(2 if kind == "integer" else 0.7)
    if target is aten.clamp.Tensor:
        found.append(next(tensors))
    if target is aten.masked_fill.Tensor:
        found[2] = r.call(aten.sum.default, r.weight(3))
    return found


def needs_positive(name: str) -> bool:
    return name.startswith(("log", "sqrt", "rsqrt", "pow", "fmod", "remainder", "floor_divide", "xlogy", "reciprocal"))


@pytest.mark.parametrize("target", FUNCTIONS, ids=str)
def test_functions(target: Any) -> None:
    """Each function on a mixed operand and operands of other ranks, broadcast against it."""
    r = Recorder()
    c, t = r.context(3, 4), r.target(2, 4)
    mixed = r.call(aten.cat.default, [c, t], 1)
    row = r.call(aten.select.int, t, 1, 0)
    one = r.call(aten.slice.Tensor, c, 1, 0, 1)
    floats = (mixed, r.call(aten.unsqueeze.default, row, 1), one, mixed)
    positive = tuple(r.call(aten.add.Tensor, r.call(aten.abs.default, x), 0.3) for x in floats)
    whole = [r.call(aten.abs.default, r.call(aten._to_copy.default, x, dtype=torch.int64)) for x in floats]
    condition = (r.call(aten.gt.Scalar, mixed, 0.31830988),)
    values = {"float": floats, "positive": positive, "integer": tuple(whole), "condition": condition}
    given = arguments(r, target, values)
    result = r.call(target, *given, **KEYWORDS.get(target, {}))
    assert_same(r.finish([result]), [FULL, POLICIES[-1]])
