"""Stages: one program in three pieces, by what each piece depends on.

    weight stage      parameters                      -> prepared weights    once per model version
    context stage     prepared weights, context       -> state               once per request
    candidate stage   prepared weights, state, target -> scores              once per candidate

The state is the only thing that crosses from a request to its candidates. Where a value and a mere view of it could
both cross, a minimum cut picks the boundary with the fewest bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import torch
from torch import fx

from rankopt.axes import elements
from rankopt.cost import FREE
from rankopt.emit import emit
from rankopt.expressions import Expr, Leaf, Stage, operands
from rankopt.program import aten


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that crosses a boundary: its name, its shape for one request, its type and size."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Source:
    """An argument of the weight stage: a tensor of the model by its own name, or a constant of the compiler's."""

    name: str
    is_constant: bool


@dataclass(frozen=True, slots=True)
class Stages:
    """The three graphs of a plan. All tensors are passed as arguments, in the order of these tuples."""

    weight_stage: fx.GraphModule
    context_stage: fx.GraphModule
    candidate_stage: fx.GraphModule
    whole: fx.GraphModule
    """All of it at once: weights, constants, context and target inputs -> outputs."""
    sources: tuple[Source, ...]
    """Arguments of the weight stage."""
    constants: Mapping[str, torch.Tensor]
    """The sources that are not the model's: indices and numbers that the compiler made."""
    prepared: tuple[str, ...]
    """Results of the weight stage, by name."""
    context_weights: tuple[int, ...]
    """Which of `prepared` the context stage takes."""
    candidate_weights: tuple[int, ...]
    """Which of `prepared` the candidate stage takes."""
    context_inputs: tuple[str, ...]
    state: tuple[Tensor, ...]
    target_inputs: tuple[str, ...]


def split(
    exprs: Sequence[Expr],
    outputs: Sequence[Expr],
    constants: Mapping[str, torch.Tensor],
    names: Names | None = None,
) -> Stages:
    """The stages of a program: `exprs` in order, of which `outputs` are the results.

    With the same `names`, tensors in the stages of several plans of one program have the same name where they are the
    same expression, and nowhere else.
    """
    state = _boundary(exprs, outputs)
    context = _closure(state, Stage.CONTEXT)
    candidate = _closure(outputs, Stage.CANDIDATE, stop={expr.serial for expr in state})
    used = [_weights_of(context), _weights_of([*candidate, *outputs])]
    prepared = sorted(used[0] | used[1], key=lambda expr: expr.serial)
    weight = _closure(prepared, Stage.WEIGHT)

    names = names or Names()
    sources = {names.of(e, "p"): e for e in weight if isinstance(e.target, Leaf)}
    prepared_names = {names.of(e, "weight"): e for e in prepared}
    state_names = {names.of(e, "state"): e for e in state}
    context_inputs = {names.of(e, "context"): e for e in _inputs(exprs, Stage.CONTEXT)}
    target_inputs = {names.of(e, "target"): e for e in _inputs(exprs, Stage.CANDIDATE)}
    arguments = [{name: e for name, e in prepared_names.items() if e in side} for side in used]
    leaves = [(e.target, str(e.args[0])) for e in sources.values()]
    return Stages(
        weight_stage=emit(sources, weight, prepared, "WeightStage"),
        context_stage=emit({**arguments[0], **context_inputs}, context, state, "ContextStage"),
        candidate_stage=emit({**arguments[1], **state_names, **target_inputs}, candidate, outputs, "CandidateStage"),
        whole=emit({**sources, **context_inputs, **target_inputs}, exprs, outputs, "Ranker"),
        sources=tuple(Source(name, target is Leaf.CONSTANT) for target, name in leaves),
        constants={name: constants[name] for target, name in leaves if target is Leaf.CONSTANT},
        prepared=tuple(prepared_names),
        context_weights=tuple(i for i, e in enumerate(prepared) if e in used[0]),
        candidate_weights=tuple(i for i, e in enumerate(prepared) if e in used[1]),
        context_inputs=tuple(str(e.args[0]) for e in context_inputs.values()),
        state=tuple(Tensor(name, _static(e), e.dtype) for name, e in state_names.items()),
        target_inputs=tuple(str(e.args[0]) for e in target_inputs.values()),
    )


def _closure(results: Iterable[Expr], stage: Stage, stop: set[int] | frozenset[int] = frozenset()) -> list[Expr]:
    """What has to run for `results`, in order. Nothing of an earlier stage, except views that were not handed over."""
    seen: dict[int, Expr] = {}
    stack = list(results)
    while stack:
        expr = stack.pop()
        if expr.serial in seen or expr.serial in stop:
            continue
        if expr.stage is Stage.WEIGHT and stage is not Stage.WEIGHT:
            continue
        seen[expr.serial] = expr
        stack.extend(operands((expr.args, expr.kwargs)))
    return [seen[serial] for serial in sorted(seen)]


def _weights_of(exprs: Iterable[Expr]) -> set[Expr]:
    """The expressions of the weight stage that `exprs` read (or are)."""
    exprs = list(exprs)
    read = {o for e in exprs if e.stage is not Stage.WEIGHT for o in operands((e.args, e.kwargs))}
    return {e for e in (*read, *exprs) if e.stage is Stage.WEIGHT}


def _inputs(exprs: Iterable[Expr], stage: Stage) -> list[Expr]:
    return [e for e in exprs if e.target is Leaf.INPUT and e.stage is stage]


def _static(expr: Expr) -> tuple[int, ...]:
    return tuple(size for size in expr.dims if isinstance(size, int))


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


class Names:
    """Unique names after the nodes of the model."""

    def __init__(self) -> None:
        self._given: dict[tuple[int, str], str] = {}
        self._used: dict[str, int] = {}

    def of(self, expr: Expr, kind: str) -> str:
        """The name of `expr`."""
        known = self._given.get((expr.serial, kind))
        if known is not None:
            return known
        source = str(expr.args[0]) if isinstance(expr.target, Leaf) else expr.origin.node
        base = name = f"{kind}_{_plain(source)}"
        while name in self._used:
            self._used[base] += 1
            name = f"{base}_{self._used[base]}"
        self._used.setdefault(name, 0)
        self._given[expr.serial, kind] = name
        return name


# ------------------------------------------------------------------------------------------------------ boundary


def _boundary(exprs: Sequence[Expr], outputs: Sequence[Expr]) -> list[Expr]:
    """The context values that candidates read; views of them, and casts to a wider type, which lose nothing either, are
    taken on whichever side costs fewer bytes."""
    read = {
        operand.serial: operand
        for expr in exprs
        if expr.stage is Stage.CANDIDATE
        for operand in operands((expr.args, expr.kwargs))
        if operand.stage is Stage.CONTEXT
    }
    read.update({e.serial: e for e in outputs if e.stage is Stage.CONTEXT})
    graph: nx.DiGraph[object] = nx.DiGraph()
    stack = list(read.values())
    seen: dict[int, Expr] = {}
    while stack:
        expr = stack.pop()
        if expr.serial in seen:
            continue
        seen[expr.serial] = expr
        graph.add_edge((expr.serial, "made"), (expr.serial, "sent"), capacity=_bytes(expr) * 1024 + 1)
        inner = [o for o in operands((expr.args, expr.kwargs)) if o.stage is Stage.CONTEXT]
        if inner and (expr.target in FREE or _widens(expr)):
            for operand in inner:
                graph.add_edge((operand.serial, "sent"), (expr.serial, "made"))
                graph.add_edge((expr.serial, "made"), (operand.serial, "made"))
            stack.extend(inner)
        else:
            graph.add_edge("context", (expr.serial, "made"))
    for expr in read.values():
        graph.add_edge((expr.serial, "sent"), "candidate")
    if not read:
        return []
    _, (kept, _) = nx.minimum_cut(graph, "context", "candidate")
    crossing = [e for s, e in seen.items() if (s, "made") in kept and (s, "sent") not in kept]
    return sorted(crossing, key=lambda expr: expr.serial)


def _widens(expr: Expr) -> bool:
    """Whether a call gives every number of a floating tensor more digits, and changes none."""
    if expr.target is not aten._to_copy.default or not isinstance(expr.args[0], Expr):
        return False
    before = expr.args[0].dtype
    return before.is_floating_point and expr.dtype.is_floating_point and before.itemsize < expr.dtype.itemsize


def _bytes(expr: Expr) -> int:
    return elements(expr.dims, 1) * expr.dtype.itemsize
