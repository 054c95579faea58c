"""torch.compile takes as many rankers as a process has, whole and in stages."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.exporting import tracing_conditions
from rankopt.ranker import Ranker

MANY = torch._dynamo.config.recompile_limit + 1
"""More than torch keeps versions of one function."""


class Wide(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4 + width, 3)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return self.layer(torch.cat([c, t], 1)).relu().sum(1)


@pytest.fixture(scope="module")
def rankers() -> list[Ranker]:
    torch.manual_seed(0)
    context = {"c": torch.randn(1, 4)}
    targets = [{"t": torch.randn(5, width)} for width in range(1, MANY + 1)]
    return [
        rankopt.optimize(Wide(width).eval(), context=context, target=target, verification=False)
        for width, target in enumerate(targets, 1)
    ]


@pytest.fixture
def compiled_graphs() -> Iterator[Any]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with tracing_conditions():
        yield torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()


def test_every_ranker_of_a_process_is_compiled(rankers: list[Ranker], compiled_graphs: Any) -> None:
    for width, ranker in enumerate(rankers, 1):
        request = {"c": torch.randn(1, 4)}, {"t": torch.randn(7, width)}
        torch.testing.assert_close(torch.compile(ranker, backend="eager", dynamic=True)(*request), ranker(*request))
    assert compiled_graphs["unique_graphs"] == MANY


def test_every_stage_of_a_process_is_compiled(rankers: list[Ranker], compiled_graphs: Any) -> None:
    for width, ranker in enumerate(rankers, 1):
        context, target = {"c": torch.randn(1, 4)}, {"t": torch.randn(7, width)}
        state = ranker.context_stage(context)
        stage = torch.compile(ranker.candidate_stage, backend="eager", dynamic=True)
        torch.testing.assert_close(stage(dict(state), target), ranker(context, target))
    assert compiled_graphs["unique_graphs"] == MANY


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # of torch, where it copies its own trees
def test_a_copy_calls_itself(rankers: list[Ranker]) -> None:
    ranker, other = rankers[0], copy.deepcopy(rankers[0])
    with torch.no_grad():
        other.get_parameter("layer.weight").zero_()
        other.get_parameter("layer.bias").zero_()
    other.refresh()
    request = {"c": torch.randn(1, 4)}, {"t": torch.ones(7, 1)}
    assert other(*request).abs().max() == 0 < ranker(*request).abs().max()


def test_its_calls_are_documented_as_those_of_the_class(rankers: list[Ranker]) -> None:
    for name in ("forward", "context_stage", "candidate_stage", "from_rows"):
        own, shared = getattr(rankers[0], name), getattr(Ranker, name)
        assert str(inspect.signature(own)) == str(inspect.signature(shared.__get__(rankers[0])))
        assert own.__doc__ == shared.__doc__


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "candidate stage"])
def test_sizes_of_weights_and_states_are_known(rankers: list[Ranker], compiled_graphs: Any, apart: bool) -> None:
    """Only the number of candidates is not: what depends on it is asked at each call, and unknown in every kernel."""
    values: list[Any] = []

    def keep(graph: Any, inputs: list[Any]) -> Any:
        values.extend(node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder"))
        return graph

    ranker, (context, target) = rankers[-1], ({"c": torch.randn(1, 4)}, {"t": torch.randn(7, MANY)})
    if apart:
        state = dict(ranker.context_stage(context))
        torch.compile(ranker.candidate_stage, backend=keep, dynamic=True)(state, target)
    else:
        torch.compile(ranker, backend=keep, dynamic=True)(context, target)
    sizes = {str(size) for value in values if isinstance(value, Tensor) for size in value.shape}
    assert len([size for size in sizes if not size.isdigit()]) == 1
