"""Calls for many requests: `ranker.many`.

    scores = ranker.many(context, target)                            # [B, ...], [B, N, ...]  ->  [B, N, ...]
    scores = ranker.many(context, target, request_of=request_of)     # [B, ...], [R, ...]     ->  [R, ...]

    state = ranker.many.context_stage(context)                       # name -> [B, ...]
    scores = ranker.many.candidate_stage(state, target, lengths=lengths)

The scores of each request are those of a call of its own. One request goes the way of one request; requests that cannot
be one call (`forms.Cannot`) are run one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rankopt.errors import StageError
from rankopt.many.inputs import ManyInputs, batch_of, require_one_request, require_same_number
from rankopt.many.running import ManyVariant, Outputs
from rankopt.ranker import Ranker
from rankopt.state import State


class Many:
    """The calls for many requests of a ranker. See `Ranker.many`."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker
        self._inputs = ManyInputs(ranker.inputs)
        self._plan = ManyVariant(ranker.variant)

    @property
    def plan(self) -> ManyVariant:
        """The plan of the ranker, for many requests."""
        return self._plan

    def __call__(
        self, context: Mapping[str, Any], target: Mapping[str, Any], *, request_of: Any = None, lengths: Any = None
    ) -> Any:
        """Scores of many requests.

        Args:
            context: by path, each [B, ...], a row per request; scalars as they are, the same for all requests.
            target: by path, each [B, N, ...]; or the rows of all requests, [R, ...], in any order.
            request_of: of which request each row is, [R], from 0 to B - 1. A request may have no row.
            lengths: instead of it, the number of rows of each request, [B], where rows are in the order of requests.

        Returns what the model returns, with [B, N, ...] or [R, ...] for its rows; an output without rows has [B, ...].
        Raises InputError for inputs that do not fit the model or each other.
        """
        return self._ranker.interface.unflatten_output(self.scores(context, target, request_of, lengths))

    def scores(
        self, context: Mapping[str, Any], target: Mapping[str, Any], request_of: Any = None, lengths: Any = None
    ) -> Outputs:
        """The tensors of the output as a flat tuple, in the order of the original's."""
        shared, requests = self._inputs.context(context, self._device)
        if requests == 1:
            return self._single(shared, target, request_of, lengths)
        if requests is None:  # every input is a scalar, so there is one state for all
            return self._outputs(self._plan.context(shared, 1), None, target, request_of, lengths)
        return self._outputs(self._plan.context(shared, requests), requests, target, request_of, lengths)

    def _single(
        self, shared: Mapping[str, Tensor], target: Mapping[str, Any], request_of: Any, lengths: Any
    ) -> Outputs:
        """One request, with as little as possible around the call of its own."""
        if request_of is None and lengths is None:
            own, (found, _) = self._inputs.dense(target, self._device)
            require_same_number(1, found)
            rows = {name: tensor[0] if tensor.dim() else tensor for name, tensor in own.items()}
            return tuple([x.unsqueeze(0) for x in self._plan.single(shared, rows)])
        own, count = self._inputs.rows(target, self._device)
        require_one_request(count, request_of, lengths, self._device)
        return self._plan.of_rows(self._plan.single(shared, own))

    def context_stage(self, context: Mapping[str, Any]) -> State:
        """The states of many requests, by name, each [B, ...]; what only depends on scalars is as for one request."""
        shared, requests = self._inputs.context(context, self._device)
        tensors = self._plan.context(shared, 1 if requests is None else requests)
        return State(tensors, self._ranker.variant.maker())

    def candidate_stage(
        self, state: Mapping[str, Tensor], target: Mapping[str, Any], *, request_of: Any = None, lengths: Any = None
    ) -> Any:
        """Scores, given the states of the requests. Raises StageError where `state` is not of this ranker."""
        variant = self._ranker.variant
        if state.keys() != variant.expected:
            raise StageError(
                "the state is not one of many requests to this ranker.\n"
                f"  expected: {', '.join(sorted(variant.expected))}, each [B, ...]\n"
                f"  found: {', '.join(sorted(state))}\n"
                "  fix: pass what many.context_stage of this very ranker returned"
            )
        requests = self._plan.requests_of(state)
        self._ranker.require_own(state)
        leading = {} if requests is None else dict.fromkeys(self._plan.many.batched, (requests,))
        variant.require_tensors(state, leading)
        outputs = self._outputs(state, requests, target, request_of, lengths)
        return self._ranker.interface.unflatten_output(outputs)

    def _outputs(
        self,
        state: Mapping[str, Tensor],
        requests: int | None,
        target: Mapping[str, Any],
        request_of: Any,
        lengths: Any,
    ) -> Outputs:
        if request_of is None and lengths is None:
            own, (found, candidates) = self._inputs.dense(target, self._device)
            require_same_number(requests, found)
            return self._plan.dense(state, own, found, candidates)
        own, rows = self._inputs.rows(target, self._device)
        return self._plan.ragged(state, own, batch_of(rows, requests, request_of, lengths, self._device))

    @property
    def _device(self) -> Any:
        return self._ranker.variant.device
