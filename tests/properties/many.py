"""Is the many-request form of a recorded program the same as a call for each request?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from properties.checking import Mismatch, difference, evaluate, plans_of, stages_of
from properties.recorder import Recorded
from torch import Tensor, nn

from rankopt.many.apart import row_dim
from rankopt.many.rows import Batch
from rankopt.many.running import ManyVariant
from rankopt.requests import Request
from rankopt.tensors import put_tensor
from rankopt.variant import Variant
from rankopt.workspace import Policy

EQUAL = (2, 2, 2)
RAGGED = (2, 0, 3)
UNGROUPED = (2, 0, 3, 1, 4)
"""An order of the rows in which those of the requests alternate."""


def assert_same_as_single_calls(
    recorded: Recorded, policy: Policy, candidates: int = 64, *, scale: float | None = None
) -> None:
    """Raises Mismatch where many requests in one call, dense or ragged, have other scores than calls one by one."""
    recorded = replace(recorded, scale=scale or recorded.scale)
    for _, plan in plans_of(recorded, [policy], candidates):
        weights = {weight.name: weight.tensor for weight in recorded.captured.weights}
        many = ManyVariant(_variant(stages_of(plan), weights))
        dims = [row_dim(expr) for expr in plan.outputs]
        for lengths in (EQUAL, RAGGED):
            requests = [recorded.request(rows) for rows in lengths]
            single = (evaluate(plan, weights, request) for request in requests if request.candidates)
            wanted = list(zip(*single, strict=True))
            for with_gradients in (False, True):
                with torch.set_grad_enabled(with_gradients):
                    state = many.context(_joined([r.context for r in requests]), len(requests))
                    if lengths is EQUAL:
                        stacked = {n: torch.stack([r.target[n] for r in requests]) for n in requests[0].target}
                        found = many.dense(state, stacked, len(requests), lengths[0])
                        _compare(recorded, policy, found, [torch.stack(tensors) for tensors in wanted], "dense")
                    elif None not in dims:
                        rows = torch.tensor(UNGROUPED)
                        joined = [torch.cat(t, d).index_select(d, rows) for t, d in zip(wanted, dims, strict=True)]
                        _compare(recorded, policy, _ragged(many, state, requests, rows), joined, "ragged")


def _ragged(many: ManyVariant, state: dict[str, Tensor], requests: Sequence[Request], rows: Tensor) -> Sequence[Tensor]:
    lengths = tuple(request.candidates for request in requests)
    request_of = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    target = {name: tensor[rows] for name, tensor in _joined([request.target for request in requests]).items()}
    return many.ragged(state, target, Batch(request_of[rows], lengths))


def _variant(stages, weights: dict[str, Tensor]) -> Variant:
    owner = nn.Module()
    for source in stages.sources:
        tensor = stages.constants[source.name] if source.is_constant else weights[source.name]
        put_tensor(owner, source.name, tensor, persistent=False)
    variant = Variant(stages, owner, [source.name for source in stages.sources], renew=lambda: None, weights_hash=str)
    variant.refresh({})
    return variant


def _joined(inputs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([each[name] for each in inputs]) for name in inputs[0]}


def _compare(recorded: Recorded, policy: Policy, found: Sequence[Tensor], wanted: Sequence[Tensor], how: str) -> None:
    for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if reason := difference(one, other, recorded.scale, recorded.tolerance):
            raise Mismatch(f"{how}, output {i} under '{policy.name}': {reason}\n{recorded.code}")
