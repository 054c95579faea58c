"""Emission: expressions as a plain `torch.fx` graph.

The graphs take everything as arguments (weights, state, inputs) and hold nothing, so that the same graph serves for
inference, training, export and compilation. Names follow the model's own nodes; the order is that of construction, so
the same model gives the same code, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from rankopt.expressions import Expr, Leaf


def emit(arguments: Mapping[str, Expr], body: Sequence[Expr], results: Sequence[Expr], name: str) -> fx.GraphModule:
    """A graph module `f(*arguments) -> tuple(results)` that runs `body`.

    Every node carries the expression that it was made from in `meta["expr"]`.
    """
    graph = fx.Graph()
    env: dict[int, fx.Node] = {}
    for argument, expr in arguments.items():
        node = graph.placeholder(argument)
        node.meta["expr"] = expr
        env[expr.serial] = node
    for expr in body:
        if expr.serial in env:
            continue
        if isinstance(expr.target, Leaf):
            raise AssertionError(f"{expr} is not among the arguments of {name}")
        node = graph.call_function(expr.target, _plug(expr.args, env), _plug(expr.kwargs, env))
        node.meta["expr"] = expr
        env[expr.serial] = node
    graph.output(tuple(env[expr.serial] for expr in results))
    graph.lint()
    return fx.GraphModule({}, graph, class_name=name)


def _plug(value: Any, env: Mapping[int, fx.Node]) -> Any:
    if isinstance(value, Expr):
        return env[value.serial]
    if isinstance(value, tuple):
        return tuple(_plug(item, env) for item in value)
    if isinstance(value, list):
        return [_plug(item, env) for item in value]
    if isinstance(value, dict):
        return {key: _plug(item, env) for key, item in value.items()}
    return value
