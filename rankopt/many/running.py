"""Runs one plan for many requests: in one call where there is a graph for it, else request by request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from rankopt.axes import Rows, Shape
from rankopt.errors import InputError
from rankopt.expressions import Expr
from rankopt.many.apart import row_dim
from rankopt.many.rows import Batch
from rankopt.many.stages import ManyStages, Runnable, derive
from rankopt.variant import Variant, runs_eagerly

WASTE = 2.0
"""How many rows a padded layout may have for each real one, before requests are grouped by length."""

Outputs = tuple[Tensor, ...]
Inputs = Mapping[str, Tensor]
Tensors = dict[str, Tensor]


class ManyVariant:
    """One plan of a ranker, for inputs that were checked."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.many: ManyStages = derive(variant.stages)
        results = variant.stages.candidate_stage.graph.output_node().args[0]
        self._outputs: list[Expr] = [node.meta["expr"] for node in results]  # type: ignore[union-attr]

    def single(self, shared: Inputs, target: Inputs) -> Outputs:
        """The outputs of one request, in a call of its own."""
        prepared, variant = self.variant.prepared(), self.variant
        return variant.run_candidates(prepared, variant.run_context(prepared, shared), target)

    # -------------------------------------------------------------------------------------------------- context

    def context(self, shared: Inputs, requests: int) -> Tensors:
        """The states of the requests: [B, ...], but for what depends on no request."""
        stages, prepared = self.variant.stages, self.variant.prepared()
        if not requests:
            return {t.name: self._empty_state(t.name, t.shape, t.dtype) for t in stages.state}
        if requests == 1:
            return self._joined([self.variant.run_context(prepared, shared)])
        if isinstance(self.many.context, str):
            return self._joined([self.variant.run_context(prepared, _of(shared, b)) for b in range(requests)])
        weights = [prepared[i] for i in stages.context_weights]
        results = _run(self.many.context)(*weights, *(shared[name] for name in stages.context_inputs))
        state = {tensor.name: result for tensor, result in zip(stages.state, results, strict=True)}
        if self.variant.has_infinities(state):  # of which request, and whether they are its own, each tells by itself
            return self._joined([self.variant.run_context(prepared, _of(shared, b)) for b in range(requests)])
        return state

    def _joined(self, states: Sequence[Tensors]) -> Tensors:
        batched = self.many.batched
        return {name: _stacked([s[name] for s in states]) if name in batched else x for name, x in states[0].items()}

    def _empty_state(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        leading = (0,) if name in self.many.batched else ()
        return torch.zeros((*leading, *shape), dtype=dtype, device=self.variant.device)

    def requests_of(self, state: Inputs) -> int | None:
        """How many requests a state is of; None where it depends on none."""
        leading = next((state[name].shape[:1] for name in state if name in self.many.batched), None)
        return None if leading is None else sum(leading)  # a scalar has none

    def state_of(self, state: Inputs, request: int) -> Tensors:
        """The state of one request."""
        batched = self.many.batched
        return {name: value.select(0, request) if name in batched else value for name, value in state.items()}

    # -------------------------------------------------------------------------------------------------- candidates

    def dense(self, state: Inputs, target: Inputs, requests: int, candidates: int) -> Outputs:
        """The outputs [B, ...] for targets [B, N, ...]."""
        if not requests:
            return self._none((0,), candidates)
        graph = self.many.dense
        if requests == 1 or isinstance(graph, str):
            prepared, run = self.variant.prepared(), self.variant.run_candidates
            each = [run(prepared, self.state_of(state, b), _of_rows(target, b)) for b in range(requests)]
            return tuple(_stacked(results) for results in zip(*each, strict=True))
        return self._call(graph, state, target)

    def ragged(self, state: Inputs, target: Inputs, batch: Batch) -> Outputs:
        """The outputs for targets [R, ...], in the order of the rows; [B, ...] for an output without rows."""
        graph, rows = self.many.ragged, len(batch.request_of)
        if batch.requests == 1:
            return self._one(state, target)
        if not batch.requests or (not rows and not isinstance(graph, str)):
            return self._none((), 0)
        if isinstance(graph, str):
            return self._one_by_one(state, target, batch)
        if graph.pads and batch.padded_rows > WASTE * rows:
            return self._by_length(graph, state, target, batch)
        return self._call(graph, state, target, batch.layout())

    def _one(self, state: Inputs, target: Inputs) -> Outputs:
        return self.of_rows(self.variant.run_candidates(self.variant.prepared(), self.state_of(state, 0), target))

    def of_rows(self, outputs: Outputs) -> Outputs:
        """The outputs of one request as those of a ragged call."""
        return tuple(x if _counts(e) else x.unsqueeze(0) for e, x in zip(self._outputs, outputs, strict=True))

    def _by_length(self, graph: Runnable, state: Inputs, target: Inputs, batch: Batch) -> Outputs:
        """Requests of similar length together: see `Batch.groups`."""
        rows: list[Tensor] = []
        found: list[Outputs] = []
        for group in batch.groups():
            own = {n: x.index_select(0, group.requests) if n in self.many.batched else x for n, x in state.items()}
            found.append(self._call(graph, own, _picked(target, group.rows), group.batch.layout()))
            rows.append(group.rows)
        return self._in_order(found, torch.cat(rows))

    def _one_by_one(self, state: Inputs, target: Inputs, batch: Batch) -> Outputs:
        prepared, run = self.variant.prepared(), self.variant.run_candidates
        order = torch.argsort(batch.request_of, stable=True)
        parts = list(enumerate(order.split(list(batch.lengths))))
        if all(_counts(expr) for expr in self._outputs):  # a request without rows has no scores to give
            parts = [(b, rows) for b, rows in parts if len(rows)]
        if not parts:
            return self._none((), 0)
        each = [run(prepared, self.state_of(state, b), _picked(target, rows)) for b, rows in parts]
        return self._in_order(each, order)

    def _in_order(self, parts: Sequence[Outputs], rows: Tensor) -> Outputs:
        """The outputs of parts of the rows as one, where part by part they are those of `rows`."""
        places = torch.empty_like(rows)
        places[rows] = torch.arange(len(rows), device=rows.device)
        results: list[Tensor] = []
        for expr, found in zip(self._outputs, zip(*parts, strict=True), strict=True):
            dim = row_dim(expr)
            if dim is not None:
                results.append(torch.cat(found, dim).index_select(dim, places))
            elif _counts(expr):
                raise InputError(
                    f"an output folds rows with something else, {list(expr.dims)}: it cannot be told to which row what "
                    "belongs.\n  fix: pass the same number of candidates for every request, [B, N, ...]"
                )
            else:
                results.append(_stacked(found))
        return tuple(results)

    def _call(self, graph: Runnable, state: Inputs, target: Inputs, index: Sequence[Tensor] = ()) -> Outputs:
        stages, prepared = self.variant.stages, self.variant.prepared()
        weights = [prepared[i] for i in stages.candidate_weights]
        values = [state[tensor.name] for tensor in stages.state]
        result: Outputs = _run(graph)(*weights, *values, *(target[name] for name in stages.target_inputs), *index)
        return result

    def _none(self, leading: tuple[int, ...], rows: int) -> Outputs:
        """The outputs of no request, or of no row."""

        def shape(dims: Shape) -> list[int]:
            return [size.times * rows if isinstance(size, Rows) else size for size in dims]

        device = self.variant.device
        return tuple(torch.zeros([*leading, *shape(e.dims)], dtype=e.dtype, device=device) for e in self._outputs)


def _run(graph: Runnable) -> Callable[..., Outputs]:
    return graph.eager if runs_eagerly() else graph.functional


def _of(shared: Inputs, request: int) -> Tensors:
    """The context of one request, [1, ...]; scalars as they are."""
    return {name: tensor[request : request + 1] if tensor.dim() else tensor for name, tensor in shared.items()}


def _of_rows(target: Inputs, request: int) -> Tensors:
    return {name: tensor.select(0, request) if tensor.dim() else tensor for name, tensor in target.items()}


def _picked(target: Inputs, rows: Tensor) -> Tensors:
    return {name: tensor.index_select(0, rows) if tensor.dim() else tensor for name, tensor in target.items()}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """`torch.stack`; of one tensor a view."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))


def _counts(expr: Expr) -> bool:
    return any(isinstance(size, Rows) for size in expr.dims)
