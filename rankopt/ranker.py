"""The rewritten model: two explicit calls, once per request and once per candidate.

    state = ranker.context_stage(context)              # context: name -> [1, ...]
    scores = ranker.candidate_stage(state, target)     # target: name -> [N, ...]
    scores = ranker(context, target)                   # both

Parameters keep the model's names and are the model's tensors, never copies (`rankopt.weights`). What is derived from
them is prepared once (`rankopt.variant`), and inputs are checked at every call (`rankopt.inputs`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from rankopt.calls import example_call
from rankopt.capture import CapturedModel, capture
from rankopt.compiler import give_own_code
from rankopt.errors import InputError, VerificationError
from rankopt.inputs import Inputs, flatten, require_same
from rankopt.interface import InputInfo, Interface
from rankopt.metadata import fingerprint
from rankopt.narrow import narrowed, require_state_dtype
from rankopt.report.facts import state_facts
from rankopt.requests import Request, split_rows
from rankopt.selectors import Role
from rankopt.stages import Stages
from rankopt.state import State
from rankopt.tensors import get_tensor
from rankopt.variant import Variant, made_by, require_own
from rankopt.weights import WeightHolder, held_name

if TYPE_CHECKING:
    from rankopt.artefacts.writing import Export
    from rankopt.many.calls import Many
    from rankopt.plan import Plan
    from rankopt.report.tree import Report
    from rankopt.verification import Verification


class Ranker(WeightHolder):
    """A rewritten ranker. Made by `rankopt.optimize` or `rankopt.load`."""

    def __init__(
        self,
        plans: Sequence[Stages],
        interface: Interface,
        weights: Mapping[str, Tensor],
        state_dtype: torch.dtype | None = None,
    ) -> None:
        """`plans`: the stages of the plan for each of the interface's ranges, made with the same `stages.Names`."""
        super().__init__(plans, weights)
        give_own_code(self, "forward", "context_stage", "candidate_stage", "from_rows")
        self.stages = plans[-1]
        """Of the plan for the largest numbers of candidates."""
        self.interface = interface
        self.state_dtype = state_dtype
        """What the state is rounded to; None for a ranker that is exact. See `with_state_dtype`."""
        sources = [[held_name(source) for source in stages.sources] for stages in plans]
        self._variants = [
            Variant(stages, self, names, self.refresh, self.weights_hash, rounded=state_dtype is not None)
            for stages, names in zip(plans, sources, strict=True)
        ]
        self.inputs = Inputs(interface)
        self.report: Report | None = None
        """What was saved, what was not, and why. None for a ranker that was loaded without its report."""
        self.examples: Mapping[str, Tensor] = {}
        """Rows [R, ...] by input that show the range of each: what requests are drawn from. Empty where unknown."""
        self._origin: tuple[CapturedModel, Sequence[Plan]] | None = None
        self._many: Many | None = None
        self.eval()
        self.refresh()

    # -------------------------------------------------------------------------------------------------- calls

    def forward(self, context: Mapping[str, Any], target: Mapping[str, Any]) -> Any:
        """Scores of one request, as the original model gives them for the tiled rows.

        Args:
            context: inputs that all candidates share, by path, each [1, ...]; scalars as they are.
            target: inputs of the candidates, by path, each [N, ...]; N may be any number, also 0.

        Raises InputError for a missing or unknown input, a wrong type, shape, device or number of rows.
        """
        shared, own = self._flat(context, Role.CONTEXT), self._flat(target, Role.TARGET)
        variant = self._variants[self.interface.place(self._rows(own))]
        prepared = variant.prepared()
        outputs = variant.run_candidates(prepared, variant.run_context(prepared, shared), own)
        return self.interface.unflatten_output(outputs)

    def context_stage(self, context: Mapping[str, Any], candidates: int | None = None) -> State:
        """Everything that does not depend on the candidates, by name. See `forward` for the arguments.

        A ranker with several plans returns the state of the one for this number of `candidates`; by default of the one
        for the largest. Any number of candidates may follow: the scores are the same, the speed may not be. While
        torch compiles or exports the call, the state is a plain dict.
        """
        variant = self._variants[-1 if candidates is None else self.interface.place(candidates)]
        tensors = variant.run_context(variant.prepared(), self._flat(context, Role.CONTEXT))
        return tensors if torch.compiler.is_compiling() else State(tensors, variant.maker())  # type: ignore[return-value]

    def candidate_stage(self, state: Mapping[str, Tensor], target: Mapping[str, Any]) -> Any:
        """Scores, given the state of the request. See `forward` for the target; it may come in parts, call by call.

        Raises StageError where `state` was made by another program or by other weights, lacks a tensor or has one too
        many, or has one of another shape, type or device. A plain dict does not say who made it: there the tensors
        alone are checked.
        """
        return self.interface.unflatten_output(self.outputs(state, target))

    def outputs(self, state: Mapping[str, Tensor], target: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The tensors of the output as a flat tuple, in the order of the original's. See `candidate_stage`."""
        variant = made_by(self._variants, state)
        prepared = variant.prepared()
        return variant.run_candidates(prepared, state, self._flat(target, Role.TARGET))

    def require_own(self, state: Mapping[str, Tensor]) -> None:
        """Raises StageError for a state that another program made, or other weights. A plain dict does not say."""
        require_own(self._variants, state)

    def from_rows(self, *args: Any, check_context: bool = False, **kwargs: Any) -> Any:
        """Drop-in for the original call on tiled rows: the context is read off the first row.

        `check_context` compares all rows, and raises InputError where the context differs between them.
        """
        rows = self.interface.call.flatten(args, kwargs)
        request = split_rows(self.interface.roles, rows, check=check_context)
        return self(request.context, request.target)

    @property
    def many(self) -> Many:
        """The calls for many requests: `ranker.many(context, target)`, and its stages. See `rankopt.many.calls`."""
        if self._many is None:
            from rankopt.many.calls import Many  # which is written in terms of rankers

            self._many = Many(self)
        return self._many

    def _flat(self, inputs: Mapping[str, Any], role: Role) -> Mapping[str, Tensor]:
        """Inputs by path, checked."""
        if torch.compiler.is_compiling():
            return flatten(inputs)
        return self.inputs.checked(role, inputs, self.variant.device)

    def _rows(self, target: Mapping[str, Tensor]) -> int:
        """The number of candidates."""
        return next((tensor.shape[0] for tensor in target.values() if tensor.ndim), 0)

    # -------------------------------------------------------------------------------------------------- plans

    @property
    def variant(self) -> Variant:
        """The plan for the largest numbers of candidates."""
        return self._variants[-1]

    def at(self, candidates: int) -> Ranker:
        """The ranker with one plan alone, the one for a number of candidates. The tensors are shared."""
        if len(self._variants) == 1:
            return self
        place = self.interface.place(candidates)
        interface = replace(self.interface, ranges=self.interface.ranges[place : place + 1])
        ranker = self._with([self._variants[place].stages], interface, self.state_dtype)
        if self._origin is not None:
            captured, plans = self._origin
            ranker._origin = captured, plans[place : place + 1]
        return ranker

    def with_state_dtype(self, dtype: torch.dtype) -> Ranker:
        """The ranker with its state rounded to `dtype`, float16 or bfloat16. The tensors are shared.

        Not exact: the scores move by the rounding, which `verify` allows for, and measures. Integer tensors stay as
        they are. A request whose state has numbers that `dtype` cannot hold is refused with StageError.

        Raises InputError for another type, or for a ranker whose state is rounded already.
        """
        require_state_dtype(dtype)
        if self.state_dtype is dtype:
            return self
        if self.state_dtype is not None:
            raise InputError(
                f"the state of this ranker is rounded already.\n  expected: an exact ranker\n"
                f"  found: {self.state_dtype}\n  fix: optimize the model again with state_dtype={dtype}"
            )
        ranker = self._with(narrowed([v.stages for v in self._variants], dtype), self.interface, dtype)
        ranker._origin = self._origin
        if ranker.report is not None:
            ranker.report = replace(ranker.report, state=state_facts(ranker.stages))
        return ranker

    def _with(self, plans: Sequence[Stages], interface: Interface, state_dtype: torch.dtype | None) -> Ranker:
        """A ranker with other stages over the same tensors."""
        ranker = Ranker(plans, interface, self.weights(), state_dtype)
        ranker.report, ranker.examples, ranker.fixed = self.report, self.examples, self.fixed
        ranker.not_in_checkpoints = self.not_in_checkpoints
        if ranker.weights().keys() == self.weights().keys():
            ranker._weights_hash = self._weights_hash
        return ranker

    # -------------------------------------------------------------------------------------------------- the original

    def attach(self, captured: CapturedModel, plans: Sequence[Plan]) -> None:
        """Remembers what the ranker was made of, for `verify`."""
        self._origin = captured, plans
        self.examples = captured.examples
        known = [w for w in captured.weights if w.name in captured.numbers or not w.tensor.dtype.is_floating_point]
        self.fixed = {weight.name: fingerprint({weight.name: weight.tensor}) for weight in known}
        self.not_in_checkpoints = frozenset(w.name for w in captured.weights if not w.in_checkpoints)

    @property
    def origin(self) -> tuple[CapturedModel, Plan] | None:
        """The captured model and the plan for the largest numbers; None for a ranker that was loaded."""
        return None if self._origin is None else (self._origin[0], self._origin[1][-1])

    def original(
        self, model: nn.Module | ExportedProgram | None, example_inputs: Any
    ) -> tuple[CapturedModel, Sequence[Plan]]:
        """The model to compare with, captured, and the plans that it was rewritten by; see `verify`."""
        if model is None and self._origin is not None:
            return self._origin
        if model is None:
            raise VerificationError(
                "a ranker that was loaded does not hold the original, so there is nothing to compare with.\n"
                "  fix: ranker.verify(model=original)"
            )
        captured = capture(model, *example_call(example_inputs))
        found = [
            InputInfo(item.name, tuple(item.shape[1:]) if item.shape else None, item.dtype) for item in captured.inputs
        ]
        require_same(self.interface, found)
        return captured, ()

    def verify(
        self,
        requests: Sequence[Request] | int = 1,
        candidates: Sequence[int] | None = None,
        model: nn.Module | ExportedProgram | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> Verification:
        """Compares the ranker with the original on tiled rows: in float64, and as served.

        Args:
            requests: given requests, or how many to draw per number of candidates.
            candidates: numbers of candidates of the requests that are drawn; several by default, among them one that
                every plan serves.
            model: the original, for a ranker that was loaded, or another model to compare with.
            example_inputs: rows with which to call `model`, as for `optimize`; an ExportedProgram needs none.
            seed: of the drawing.

        Raises VerificationError where there is no original, InputError where `model` has other inputs.
        """
        from rankopt import verify  # which is written in terms of rankers

        captured, plans = self.original(model, example_inputs)
        numbers = verify.numbers(self.interface) if candidates is None else candidates
        return verify.verify(captured, self, requests, numbers, seed, plans)

    # -------------------------------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes the ranker to a .pt2 file, whole or not at all; `rankopt.load` reads it. See `rankopt.saved`.

        Raises OutputError where the file exists and `overwrite` is not set, or cannot be written.
        """
        from rankopt import saved  # which is written in terms of rankers

        saved.save(self, path, overwrite)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        stages: bool = False,
        signature: str = "request",
        many: str | None = None,
        overwrite: bool = False,
        example_inputs: Any = None,
        single_file: int | None = None,
        candidates: int | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> Export:
        """Writes what a serving stack runs without rankopt: `.onnx`, `.aoti.pt2` or `.pt2`, by the ending of `path`.

        Every file is run and compared with the ranker at several numbers of candidates before it is put in its place.

        Args:
            path: the file; with `stages`, what the files of the stages are named after.
            stages: write NAME.context and NAME.candidate apart, and NAME.stages.json about the state between them.
            signature: "request" takes context [1, ...] and target [N, ...]; "rows" the original's rows [N, ...].
            many: for many requests per call, how their candidates come: "dense" [B, N, ...], or as rows [R, ...] with
                "lengths" [B] or "request_of" [R]. See docs/many-requests.md.
            overwrite: replace files that exist.
            example_inputs: rows, as for `optimize`, that show the ranges to draw requests from; the ranker's own by
                default.
            single_file: bytes of weights up to which an ONNX model is one file; beyond, they lie in NAME.onnx.data.
            candidates: which of several plans to write: the one for this number; by default for the largest.
            state_dtype: round the state to float16 or bfloat16, see `with_state_dtype`; the error is in the result.

        Raises OutputError for an unknown ending or a file in the way, ExportError where the format lacks something,
        VerificationError where what was written gives other scores. See `rankopt.artefacts`.
        """
        from rankopt.artefacts import writing  # which is written in terms of rankers

        given = writing.Order(Path(path), stages, writing.signature_of(signature), many=writing.batching_of(many))
        if single_file is not None:
            given = replace(given, single_file=single_file)
        ranker = self.at(self.interface.candidates if candidates is None else candidates)
        ranker = ranker if state_dtype is None else ranker.with_state_dtype(state_dtype)
        return writing.export(ranker, given, overwrite, example_inputs)

    # -------------------------------------------------------------------------------------------------- weights

    def refresh(self) -> None:
        """Runs the weight stage again. Called on its own when a parameter has changed, or moved.

        To be called after a change that torch does not count: one through `.data`, or of an inference tensor.
        """
        super().refresh()
        known: dict[str, Tensor] = {}
        for variant in self._variants:
            variant.refresh(known)

    def prepared(self) -> Sequence[Tensor]:
        """The results of the weight stage, in the order of `stages.prepared`."""
        return self._variants[-1].prepared()

    @property
    def source_names(self) -> Sequence[str]:
        """The names of all arguments of the weight stage, in its order: of `weights()` and of `constants()`."""
        return self._variants[-1].sources

    def arguments(self, request: Request) -> dict[str, Tensor]:
        """The arguments of `stages.whole` for a request, by placeholder."""
        names = [node.name for node in self.stages.whole.graph.find_nodes(op="placeholder")]
        values = [get_tensor(self, name).detach() for name in self.source_names]
        values += [request.context[name] for name in self.stages.context_inputs]
        values += [request.target[name] for name in self.stages.target_inputs]
        return dict(zip(names, values, strict=True))
