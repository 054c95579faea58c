"""The rewritten model: two explicit calls, once per request and once per candidate.

    state = ranker.context_stage(context)              # context: name -> [1, ...]
    scores = ranker.candidate_stage(state, target)     # target: name -> [N, ...]
    scores = ranker(context, target)                   # both

Parameters keep the model's names and are the model's tensors, never copies. What is derived from them is prepared once
(see `rankopt.variant`), and inputs are checked at every call (`rankopt.inputs`).
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
from rankopt.errors import InputError, StageError, VerificationError
from rankopt.inputs import Inputs, flatten, require_same
from rankopt.interface import InputInfo, Interface
from rankopt.metadata import fingerprint
from rankopt.narrow import narrowed, require_state_dtype
from rankopt.report.facts import state_facts
from rankopt.requests import Request, split_rows
from rankopt.selectors import Role
from rankopt.stages import Stages
from rankopt.state import State, refuse_other_version
from rankopt.tensors import get_tensor, put_tensor
from rankopt.variant import Variant, count_changes

if TYPE_CHECKING:
    from rankopt.artefacts.writing import Export
    from rankopt.many.calls import Many
    from rankopt.plan import Plan
    from rankopt.report.tree import Report
    from rankopt.verification import Verification


class Ranker(nn.Module):
    """A rewritten ranker. Made by `rankopt.optimize` or `rankopt.load`."""

    def __init__(
        self,
        plans: Sequence[Stages],
        interface: Interface,
        weights: Mapping[str, Tensor],
        state_dtype: torch.dtype | None = None,
    ) -> None:
        """`plans`: the stages of the plan for each of the interface's ranges, made with the same `stages.Names`."""
        super().__init__()
        self.stages = plans[-1]
        """Of the plan for the largest numbers of candidates."""
        self.interface = interface
        self.state_dtype = state_dtype
        """What the state is rounded to; None for a ranker that is exact. See `with_state_dtype`."""
        sources = [self._register(stages, weights) for stages in plans]
        self._variants = [
            Variant(stages, self, names, self.refresh, self.weights_hash, rounded=state_dtype is not None)
            for stages, names in zip(plans, sources, strict=True)
        ]
        self.inputs = Inputs(interface)
        self.report: Report | None = None
        """What was saved, what was not, and why. None for a ranker that was loaded without its report."""
        self.examples: Mapping[str, Tensor] = {}
        """Rows [R, ...] by input that show the range of each: what requests are drawn from. Empty where unknown."""
        self.fixed: Mapping[str, str] = {}
        """Indices and masks of the model, which the graph was specialised for: their names and fingerprints."""
        self.not_in_checkpoints: frozenset[str] = frozenset()
        """Tensors that no state dict of the model holds: non-persistent buffers, and what was made of others."""
        self._origin: tuple[CapturedModel, Sequence[Plan]] | None = None
        self._many: Many | None = None
        self._weights_hash: tuple[str, int] | None = None
        self.eval()
        self.refresh()

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute of the ranker's own, also where the model has a layer or a parameter of that name."""
        if isinstance(value, Tensor | nn.Module):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

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
        variant = self._of_state(state)
        prepared = variant.prepared()
        return variant.run_candidates(prepared, state, self._flat(target, Role.TARGET))

    def _of_state(self, state: Mapping[str, Tensor]) -> Variant:
        """The plan that a state was made by; of several with the same state, any. Raises StageError for another's."""
        fitting = next((v for v in reversed(self._variants) if state.keys() == v.expected), None)
        if fitting is None:
            expected = self._variants[-1].expected
            missing, unknown = sorted(expected - set(state)), sorted(set(state) - expected)
            raise StageError(
                f"the state is not one of this ranker: missing {missing}, unknown {unknown}.\n"
                "  fix: pass what context_stage of this very ranker returned"
            )
        if not torch.compiler.is_compiling():
            self.require_own(state)
            fitting.require_tensors(state)
        return fitting

    def require_own(self, state: Mapping[str, Tensor]) -> None:
        """Raises StageError for a state that another program made, or other weights. A plain dict does not say."""
        if not isinstance(state, State) or any(state.made_by is variant.maker() for variant in self._variants):
            return
        found = state.version  # first, for it may be unknown, and hashing takes its time
        fitting = [variant for variant in self._variants if state.keys() == variant.expected]
        refuse_other_version(found, [variant.version() for variant in fitting])

    def _rows(self, target: Mapping[str, Tensor]) -> int:
        """The number of candidates."""
        return next((tensor.shape[0] for tensor in target.values() if tensor.ndim), 0)

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

    @property
    def many(self) -> Many:
        """The calls for many requests: `ranker.many(context, target)`, and its stages. See `rankopt.many.calls`."""
        if self._many is None:
            from rankopt.many.calls import Many  # which is written in terms of rankers

            self._many = Many(self)
        return self._many

    @property
    def variant(self) -> Variant:
        """The plan for the largest numbers of candidates."""
        return self._variants[-1]

    def from_rows(self, *args: Any, check_context: bool = False, **kwargs: Any) -> Any:
        """Drop-in for the original call on tiled rows: the context is read off the first row.

        `check_context` compares all rows, and raises InputError where the context differs between them.
        """
        rows = self.interface.call.flatten(args, kwargs)
        request = split_rows(self.interface.roles, rows, check=check_context)
        return self(request.context, request.target)

    def arguments(self, request: Request) -> dict[str, Tensor]:
        """The arguments of `stages.whole` for a request, by placeholder."""
        names = [node.name for node in self.stages.whole.graph.find_nodes(op="placeholder")]
        values = [get_tensor(self, name).detach() for name in self.source_names]
        values += [request.context[name] for name in self.stages.context_inputs]
        values += [request.target[name] for name in self.stages.target_inputs]
        return dict(zip(names, values, strict=True))

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

    # -------------------------------------------------------------------------------------------------- inputs

    def _flat(self, inputs: Mapping[str, Any], role: Role) -> Mapping[str, Tensor]:
        """Inputs by path, checked."""
        if torch.compiler.is_compiling():
            return flatten(inputs)
        return self.inputs.checked(role, inputs, self.variant.device)

    # -------------------------------------------------------------------------------------------------- weights

    def refresh(self) -> None:
        """Runs the weight stage again. Called on its own when a parameter has changed, or moved.

        To be called after a change that torch does not count: one through `.data`, or of an inference tensor.
        """
        self._weights_hash = None
        known: dict[str, Tensor] = {}
        for variant in self._variants:
            variant.refresh(known)

    def _apply(self, fn: Any, recurse: bool = True) -> Ranker:
        super()._apply(fn, recurse)
        self.refresh()
        return self

    def load_original_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """New weights under the original model's names; nothing is optimised again.

        What no state dict of the model holds (a non-persistent buffer) stays as it is unless it is given. Names that
        the ranker does not know are left out: it reads what the scores depend on. States of the old weights are refused
        from now on. Nothing is changed where an error is raised.

        Raises StageError where a weight is missing, is no tensor or has another shape, or where an index or a mask
        differs: laws look into those, so other values are another program.
        """
        own = self.weights()
        names = [name for name in own if name in state_dict or name not in self.not_in_checkpoints]
        missing = [name for name in names if name not in state_dict]
        wrong = [n for n in names if n in state_dict and getattr(state_dict[n], "shape", None) != own[n].shape]
        if missing or wrong:
            raise StageError(
                f"the state dict does not fit: missing {missing}, of another shape {wrong}.\n"
                f"  found: {', '.join(list(state_dict)[:8])}{' and more' if len(state_dict) > 8 else ''}\n"
                "  fix: pass the state dict of the model that was optimised"
            )
        changed = [n for n, was in self.fixed.items() if n in state_dict and fingerprint({n: state_dict[n]}) != was]
        if changed:
            raise StageError(
                f"the state dict has other indices or masks, which the ranker was specialised for: {changed}.\n"
                "  fix: optimize the model with its new weights"
            )
        with torch.no_grad():
            for name in names:
                own[name].copy_(state_dict[name])
        self.refresh()

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the model that the ranker reads, by their names in the model."""
        sources = [source for variant in reversed(self._variants) for source in variant.stages.sources]
        return {source.name: get_tensor(self, source.name) for source in sources if not source.is_constant}

    def weights_hash(self) -> str:
        """The `rankopt.metadata.fingerprint` of the weights, kept until they change: about a second for 1 GB."""
        weights = self.weights()
        changes = count_changes(list(weights.values()))
        if self._weights_hash is None or self._weights_hash[1] != changes:
            self._weights_hash = fingerprint(weights), changes
        return self._weights_hash[0]

    def set_weights_hash(self, known: str) -> None:
        """Spares the hashing of weights of which the hash is known."""
        self._weights_hash = known, count_changes(list(self.weights().values()))

    def constants(self) -> dict[str, Tensor]:
        """The tensors that the compiler made, such as indices, by their names in the ranker."""
        sources = [source for variant in reversed(self._variants) for source in variant.stages.sources]
        names = [f"_{source.name}" for source in sources if source.is_constant]
        return {name: get_tensor(self, name) for name in names}

    @property
    def source_names(self) -> Sequence[str]:
        """The names of all arguments of the weight stage, in its order: of `weights()` and of `constants()`."""
        return self._variants[-1].sources

    def get_parameter_or_buffer(self, name: str) -> Tensor:
        """A weight by the name that it has in the original model."""
        return get_tensor(self, name)

    def prepared(self) -> Sequence[Tensor]:
        """The results of the weight stage, in the order of `stages.prepared`."""
        return self._variants[-1].prepared()

    def _register(self, stages: Stages, weights: Mapping[str, Tensor]) -> list[str]:
        """Puts tensors where the original model has them; the compiler's own are no part of the state dict."""
        names: list[str] = []
        for name, is_constant in ((source.name, source.is_constant) for source in stages.sources):
            names.append(f"_{name}" if is_constant else name)
            if is_constant:
                put_tensor(self, names[-1], stages.constants[name], persistent=False)
            else:
                put_tensor(self, name, weights[name])
        return names
