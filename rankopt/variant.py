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
from rankopt.errors import StageError
from rankopt.float64 import run_float64
from rankopt.identity import program_hash
from rankopt.stages import Stages
from rankopt.state import Maker, State, Version, refuse_other_version
from rankopt.tensors import get_tensor

NONE: Mapping[str, tuple[int, ...]] = {}


class Variant:
    """The stages of one plan over the tensors of `owner`, of which `sources` are the names.

    `renew` refreshes all plans of the owner; it is called when a tensor has changed. `weights_hash` is the owner's.
    `rounded`: the state is rounded (`rankopt.narrow`), and each one is looked at for numbers that became infinite.
    """

    def __init__(
        self,
        stages: Stages,
        owner: nn.Module,
        sources: Sequence[str],
        renew: Callable[[], None],
        weights_hash: Callable[[], str],
        rounded: bool = False,
    ) -> None:
        self.stages = stages
        self.sources = sources
        self._owner = owner
        self._renew = renew
        self._weights_hash = weights_hash
        self.expected = {tensor.name for tensor in stages.state}
        """The names in a state of this plan."""
        self._may_overflow = [t.name for t in stages.state if rounded and t.dtype.is_floating_point]
        self._eager = (eager(stages.context_stage), eager(stages.candidate_stage))
        self._tensors: list[Tensor] = []
        self._prepared: list[Tensor] = []
        self._watched: list[Tensor] = []
        self._version = -1
        self._converted = False
        self._maker = Maker()
        self._maker_changes = -1

    @property
    def device(self) -> torch.device | None:
        """Where the weights are; None where there are none."""
        return self._tensors[0].device if self._tensors else None

    def run_context(self, prepared: Sequence[Tensor], context: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a request, for inputs that were checked."""
        stages = self.stages
        weights = [prepared[i] for i in stages.context_weights]
        run = self._eager[0] if runs_eagerly() else stages.context_stage
        results = run(*weights, *(context[name] for name in stages.context_inputs))
        state = {tensor.name: result for tensor, result in zip(stages.state, results, strict=True)}
        if self.has_infinities(state):
            self._refuse_overflow(state, [*weights, *(context[name] for name in stages.context_inputs)])
        return state

    def has_infinities(self, state: Mapping[str, Tensor]) -> bool:
        """Whether rounding may have been too much for a number: there are infinite ones in a rounded state."""
        if torch.compiler.is_compiling():
            return False
        return any([bool(state[name].isinf().any()) for name in self._may_overflow])

    def _refuse_overflow(self, state: Mapping[str, Tensor], arguments: Sequence[Tensor]) -> None:
        """Raises StageError where a number became infinite by rounding; those of the model's own are as they were."""
        nodes = self.stages.context_stage.graph.find_nodes(op="placeholder")
        given = {node.name: tensor.detach() for node, tensor in zip(nodes, arguments, strict=True)}
        exact = run_float64(self.stages.context_stage, given)
        for tensor, wide in zip(self.stages.state, exact, strict=True):
            lost = wide[state[tensor.name].isinf() & wide.isfinite()]
            if tensor.name in self._may_overflow and len(lost):
                most = torch.finfo(tensor.dtype).max
                raise StageError(
                    f"the state does not fit into {tensor.dtype}: '{tensor.name}' holds {float(lost[0]):.3g}.\n"
                    f"  expected: numbers up to {most:.3g}\n"
                    "  fix: state_dtype=torch.bfloat16 (--state-dtype bfloat16) ends at 3.39e+38; or leave it out"
                )

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

    # -------------------------------------------------------------------------------------------------- state

    def maker(self) -> Maker:
        """Who makes states now: another one whenever a weight has changed."""
        changes = count_changes(self._tensors)
        if self._maker.is_over or self._maker_changes != changes:
            self._maker.end()
            self._maker, self._maker_changes = Maker(self.version), changes
        return self._maker

    def version(self) -> Version:
        """The version of the states that this plan makes now."""
        return Version(program_hash(self.stages), self._weights_hash())

    def require_tensors(self, state: Mapping[str, Tensor], leading: Mapping[str, tuple[int, ...]] = NONE) -> None:
        """Raises StageError for a tensor of another shape, type or device. `leading`: dims before the plan's own."""
        device = self.device
        for tensor in self.stages.state:
            found = state[tensor.name]
            shape = (*leading.get(tensor.name, ()), *tensor.shape)
            fits = found.shape == shape and (found.dtype is tensor.dtype or self._converted)
            if not fits or (device is not None and found.device != device):
                on = "" if device is None else f" on {device}"
                raise StageError(
                    f"the state does not fit this ranker: '{tensor.name}' is another tensor.\n"
                    f"  expected: {list(shape)} {tensor.dtype}{on}\n"
                    f"  found: {list(found.shape)} {found.dtype} on {found.device}\n"
                    "  fix: pass what context_stage of this very ranker returned"
                )

    # -------------------------------------------------------------------------------------------------- weights

    def refresh(self, known: dict[str, Tensor]) -> None:
        """Runs the weight stage again. What is known by its name, from other plans, is the same tensor in this one."""
        self._tensors = [get_tensor(self._owner, name) for name in self.sources]
        self._maker.end()
        nodes = self.stages.weight_stage.graph.find_nodes(op="placeholder")
        pairs = zip(nodes, self._tensors, strict=True)
        self._converted = any(tensor.dtype is not node.meta["expr"].dtype for node, tensor in pairs)
        with torch.no_grad():
            prepared = self.stages.weight_stage(*self._tensors)
        named = zip(self.stages.prepared, prepared, strict=True)
        self._prepared = [known.setdefault(name, _as_weight(tensor)) for name, tensor in named]
        self._watched = self._read_by_derived()
        self._version = self._current_version()

    def _read_by_derived(self) -> list[Tensor]:
        """The weights of which the prepared ones are more than the very tensor: when they change, so do those."""
        nodes = self.stages.weight_stage.graph.find_nodes(op="placeholder")
        pairs = zip(nodes, self._tensors, strict=True)
        return [tensor for node, tensor in pairs if any(user.op == "call_function" for user in node.users)]

    def _current_version(self) -> int:
        """Grows with every in-place change of a watched weight."""
        return count_changes(self._watched)


def made_by(variants: Sequence[Variant], state: Mapping[str, Tensor]) -> Variant:
    """Which of a ranker's plans made a state; of several with the same state, any. Raises StageError for another's."""
    fitting = next((variant for variant in reversed(variants) if state.keys() == variant.expected), None)
    if fitting is None:
        expected = variants[-1].expected
        missing, unknown = sorted(expected - set(state)), sorted(set(state) - expected)
        raise StageError(
            f"the state is not one of this ranker: missing {missing}, unknown {unknown}.\n"
            "  fix: pass what context_stage of this very ranker returned"
        )
    if not torch.compiler.is_compiling():
        require_own(variants, state)
        fitting.require_tensors(state)
    return fitting


def require_own(variants: Sequence[Variant], state: Mapping[str, Tensor]) -> None:
    """Raises StageError for a state that another program made, or other weights. A plain dict does not say."""
    if not isinstance(state, State) or any(state.made_by is variant.maker() for variant in variants):
        return
    found = state.version  # first, for it may be unknown, and hashing takes its time
    fitting = [variant for variant in variants if state.keys() == variant.expected]
    refuse_other_version(found, [variant.version() for variant in fitting])


def _as_weight(tensor: Tensor) -> Tensor:
    """The tensor as a parameter without gradient, as which torch.compile knows that its shape will not change.

    With `dynamic=True` it takes all sizes of a plain tensor for unknown, in its kernels and at every call.
    """
    return nn.Parameter(tensor.detach(), requires_grad=False)


def count_changes(tensors: Sequence[Tensor]) -> int:
    """A number that grows with every in-place change that torch counts: not with those of inference tensors."""
    return sum([tensor._version for tensor in tensors if not tensor.is_inference()])


def runs_eagerly() -> bool:
    """Whether intermediates may be overwritten and looked at: nobody needs them for gradients, or traces the calls."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return torch._C._get_tracing_state() is None and torch._C._functorch.peek_interpreter_stack() is None
