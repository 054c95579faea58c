"""The stages of one request, derived for many: for a dense call, for a ragged one, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from rankopt.eager import eager
from rankopt.expressions import Leaf, Stage
from rankopt.many.batched import Cannot
from rankopt.many.derivation import Derivation
from rankopt.stages import Stages


@dataclass(frozen=True, slots=True)
class Runnable:
    """A graph, and the form of it that is run when no gradient is recorded."""

    functional: fx.GraphModule
    eager: fx.GraphModule
    pads: bool = False
    """Whether it takes the rows of each request padded to the longest."""


@dataclass(frozen=True, slots=True)
class ManyStages:
    """The graphs for many requests. One that is missing has a reason, and its requests are run one by one."""

    context: Runnable | str
    dense: Runnable | str
    ragged: Runnable | str
    batched: frozenset[str]
    """The tensors of the state that have a leading request dim; the others are the same for all requests."""


def derive(stages: Stages) -> ManyStages:
    """The many-request form of the stages of one request."""
    varying = _varying(stages)
    state = {str(node.target): node for node in stages.candidate_stage.graph.find_nodes(op="placeholder")}
    batched = frozenset(t.name for t in stages.state if state[t.name].meta["expr"].inputs & varying)
    return ManyStages(
        _derived(stages.context_stage, Derivation(Stage.CONTEXT, False, varying), "ManyContextStage"),
        _derived(stages.candidate_stage, Derivation(Stage.CANDIDATE, False, varying), "DenseCandidateStage"),
        _derived(stages.candidate_stage, Derivation(Stage.CANDIDATE, True, varying), "RaggedCandidateStage"),
        batched,
    )


def _varying(stages: Stages) -> frozenset[str]:
    """The context inputs that differ from request to request: those with dims."""
    nodes = stages.whole.graph.find_nodes(op="placeholder")
    inputs = [expr for node in nodes if (expr := node.meta["expr"]).target is Leaf.INPUT]
    return frozenset(str(expr.args[0]) for expr in inputs if expr.stage is Stage.CONTEXT and expr.dims)


def _derived(single: fx.GraphModule, derivation: Derivation, name: str) -> Runnable | str:
    try:
        graph_module = derivation.derive(single, name)
    except Cannot as reason:
        return str(reason)
    return Runnable(graph_module, eager(graph_module), derivation.pads)
