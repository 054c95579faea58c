"""One plan of a ranker, ready to run: its stages, and the weights that are prepared for it.

The tensors are the ranker's. What is derived from them (slices, permutations, compositions) is prepared once and
renewed when a tensor changes; while gradients are recorded it is computed inside the call, so that they reach the
original parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rankopt.eager import eager
from rankopt.stages import Stages
from rankopt.tensors import get_tensor

State = dict[str, Tensor]
"""What crosses from the context stage to the candidate stage, by name."""


class Variant:
    """The stages of one plan over the tensors of `owner`, of which `sources` are the names.

    `renew` refreshes all plans of the owner; it is called when a tensor has changed.
    """

    def __init__(self, stages: Stages, owner: nn.Module, sources: Sequence[str], renew: Callable[[], None]) -> None:
        self.stages = stages
        self.sources = sources
        self._owner = owner
        self._renew = renew
        self.expected = {tensor.name for tensor in stages.state}
        """The names in a state of this plan."""
        self._eager = (eager(stages.context_stage), eager(stages.candidate_stage))
        self._tensors: list[Tensor] = []
        self._prepared: list[Tensor] = []
        self._watched: list[Tensor] = []
        self._version = -1

    @property
    def device(self) -> torch.device | None:
        """Where the weights are; None where there are none."""
        return self._tensors[0].device if self._tensors else None

    def run_context(self, prepared: Sequence[Tensor], context: Mapping[str, Tensor]) -> State:
        """The state of a request, for inputs that were checked."""
        stages = self.stages
        weights = [prepared[i] for i in stages.context_weights]
        run = self._eager[0] if runs_eagerly() else stages.context_stage
        results = run(*weights, *(context[name] for name in stages.context_inputs))
        return {tensor.name: result for tensor, result in zip(stages.state, results, strict=True)}

    def run_candidates(
        self, prepared: Sequence[Tensor], state: Mapping[str, Tensor], target: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """The tensors of the output, given the state of the request."""
        stages = self.stages
        weights = [prepared[i] for i in stages.candidate_weights]
        values = [state[tensor.name] for tensor in stages.state]
        run = self._eager[1] if runs_eagerly() else stages.candidate_stage
        result: tuple[Tensor, ...] = run(*weights, *values, *(target[name] for name in stages.target_inputs))
        return result

    def prepared(self) -> Sequence[Tensor]:
        """The results of the weight stage, in the order of `stages.prepared`."""
        if torch.is_grad_enabled() and any(source.requires_grad for source in self._tensors):
            prepared: Sequence[Tensor] = self.stages.weight_stage(*self._tensors)
            return prepared
        if not torch.compiler.is_compiling() and self._version != self._current_version():
            self._renew()
        return self._prepared

    def refresh(self, known: dict[str, Tensor]) -> None:
        """Runs the weight stage again. What is known by its name, from other plans, is the same tensor in this one."""
        self._tensors = [get_tensor(self._owner, name) for name in self.sources]
        with torch.no_grad():
            prepared = self.stages.weight_stage(*self._tensors)
        named = zip(self.stages.prepared, prepared, strict=True)
        self._prepared = [known.setdefault(name, tensor.detach()) for name, tensor in named]
        self._watched = self._read_by_derived()
        self._version = self._current_version()

    def _read_by_derived(self) -> list[Tensor]:
        """The weights of which the prepared ones are more than the very tensor: when they change, so do those."""
        nodes = self.stages.weight_stage.graph.find_nodes(op="placeholder")
        pairs = zip(nodes, self._tensors, strict=True)
        changed = [tensor for node, tensor in pairs if any(user.op == "call_function" for user in node.users)]
        return [tensor for tensor in changed if not tensor.is_inference()]  # those do not count their changes

    def _current_version(self) -> int:
        """Grows with every in-place change of a watched weight."""
        return sum([tensor._version for tensor in self._watched])


def runs_eagerly() -> bool:
    """Whether intermediates may be overwritten: nobody needs them for gradients, or traces the calls."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()
