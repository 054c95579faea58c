"""The identity of a program: a hash of what computes a state, which is the same in every process and after loading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

from rankopt.expressions import Expr, Leaf, operands
from rankopt.metadata import fingerprint
from rankopt.stages import Stages


def program_hash(stages: Stages) -> str:
    """SHA-256 over the calls that compute the state from context and weights, and the names of its tensors.

    Calls are numbered in the order in which they are first needed, so how graphs name their nodes does not matter. The
    model's weights count by name, the compiler's constants by value. Where two rankers agree in this hash and in their
    weights, a state of one is a state of the other.
    """
    results = [node.meta["expr"] for node in stages.context_stage.graph.output_node().args[0]]  # type: ignore[union-attr]
    named = sorted((tensor.name, expr) for tensor, expr in zip(stages.state, results, strict=True))
    numbers: dict[int, int] = {}
    digest = hashlib.sha256()
    for name, result in named:
        for expr in _needed(result, numbers):
            numbers[expr.serial] = len(numbers)
            digest.update(f"{_line(expr, numbers, stages.constants)}\n".encode())
        digest.update(f"{name} = %{numbers[result.serial]}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _needed(result: Expr, known: Mapping[int, int]) -> Iterator[Expr]:
    """The expressions behind a result that are not known yet, operands first; the caller makes them known."""
    stack = [result]
    while stack:
        expr = stack[-1]
        missing = next((o for o in operands((expr.args, expr.kwargs)) if o.serial not in known), None)
        if missing is not None:
            stack.append(missing)
            continue
        stack.pop()
        if expr.serial not in known:
            yield expr


def _line(expr: Expr, numbers: Mapping[int, int], constants: Mapping[str, Tensor]) -> str:
    if expr.target is Leaf.CONSTANT:
        return f"constant {fingerprint({'': constants[expr.args[0]]})}"
    return f"{_name(expr.target)} {_arguments(expr, numbers)} {expr.shape} {expr.dtype}"


def _arguments(expr: Expr, numbers: Mapping[int, int]) -> str:
    """The arguments by name, without those that say what the op's schema says: a file does not keep which were said."""
    if not isinstance(expr.target, OpOverload):
        return _text((expr.args, expr.kwargs), numbers)
    schema = expr.target._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, expr.args, strict=False)} | dict(expr.kwargs)
    texts = {name: _text(value, numbers) for name, value in given.items()}
    defaults = {a.name: _text(a.default_value, numbers) for a in schema if a.has_default_value()}
    return ", ".join(f"{name}={texts[name]}" for name in sorted(texts) if texts[name] != defaults.get(name))


def _name(target: Any) -> str:
    if isinstance(target, OpOverload):
        return str(target)
    return target.name if isinstance(target, Leaf) else f"{target.__module__}.{target.__name__}"


def _text(value: Any, numbers: Mapping[int, int]) -> str:
    if isinstance(value, Expr):
        return f"%{numbers[value.serial]}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_text(item, numbers) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_text(value[name], numbers)}' for name in sorted(value))}}}"
    return repr(value)
