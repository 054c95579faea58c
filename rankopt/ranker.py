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
from rankopt.errors import StageError, VerificationError
from rankopt.inputs import Inputs, flatten, require_same
from rankopt.interface import InputInfo, Interface
from rankopt.metadata import fingerprint
from rankopt.requests import Request, split_rows
from rankopt.selectors import Role
from rankopt.stages import Stages
from rankopt.tensors import get_tensor, put_tensor
from rankopt.variant import State, Variant

if TYPE_CHECKING:
    from rankopt.artefacts.writing import Export
    from rankopt.many.calls import Many
    from rankopt.plan import Plan
    from rankopt.report.tree import Report
    from rankopt.verification import Verification


class Ranker(nn.Module):
    """A rewritten ranker. Made by `rankopt.optimize` or `rankopt.load`."""

    def __init__(self, plans: Sequence[Stages], interface: Interface, weights: Mapping[str, Tensor]) -> None:
        """`plans`: the stages of the plan for each of the interface's ranges, made with the same `stages.Names`."""
        super().__init__()
        self.stages = plans[-1]
        """Of the plan for the largest numbers of candidates."""
        self.interface = interface
        self._variants = [Variant(stages, self, self._register(stages, weights), self.refresh) for stages in plans]
        self.inputs = Inputs(interface)
        self.report: Report | None = None
        """What was saved, what was not, and why. None for a ranker that was loaded without its report."""
        self.examples: Mapping[str, Tensor] = {}
        """Rows [R, ...] by input that show the range of each: what requests are drawn from. Empty where unknown."""
        self.fixed: Mapping[str, str] = {}
        """Indices and masks of the model, which the graph was specialised for: their names and fingerprints."""
        self._origin: tuple[CapturedModel, Sequence[Plan]] | None = None
        self._many: Many | None = None
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
        for the largest. Any number of candidates may follow: the scores are the same, the speed may not be.
        """
        variant = self._variants[-1 if candidates is None else self.interface.place(candidates)]
        return variant.run_context(variant.prepared(), self._flat(context, Role.CONTEXT))

    def candidate_stage(self, state: Mapping[str, Tensor], target: Mapping[str, Any]) -> Any:
        """Scores, given the state of the request. Raises StageError when `state` is not of this ranker."""
        return self.interface.unflatten_output(self.outputs(state, target))

    def outputs(self, state: Mapping[str, Tensor], target: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The tensors of the output as a flat tuple, in the order of the original's. See `candidate_stage`."""
        variant = self._of_state(state)
        prepared = variant.prepared()
        return variant.run_candidates(prepared, state, self._flat(target, Role.TARGET))

    def _of_state(self, state: Mapping[str, Tensor]) -> Variant:
        """The plan that a state was made by; of several with the same state, any."""
        for variant in reversed(self._variants):
            if set(state) == variant.expected:
                return variant
        expected = self._variants[-1].expected
        missing, unknown = sorted(expected - set(state)), sorted(set(state) - expected)
        raise StageError(
            f"the state is not one of this ranker: missing {missing}, unknown {unknown}.\n"
            "  fix: pass what context_stage of this very ranker returned"
        )

    def _rows(self, target: Mapping[str, Tensor]) -> int:
        """The number of candidates."""
        return next((tensor.shape[0] for tensor in target.values() if tensor.ndim), 0)

    def at(self, candidates: int) -> Ranker:
        """The ranker with one plan alone, the one for a number of candidates. The tensors are shared."""
        if len(self._variants) == 1:
            return self
        place = self.interface.place(candidates)
        interface = replace(self.interface, ranges=self.interface.ranges[place : place + 1])
        ranker = Ranker([self._variants[place].stages], interface, self.weights())
        ranker.report, ranker.examples, ranker.fixed = self.report, self.examples, self.fixed
        if self._origin is not None:
            captured, plans = self._origin
            ranker._origin = captured, plans[place : place + 1]
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

        Raises OutputError for an unknown ending or a file in the way, ExportError where the format lacks something,
        VerificationError where what was written gives other scores. See `rankopt.artefacts`.
        """
        from rankopt.artefacts import writing  # which is written in terms of rankers

        given = writing.Order(Path(path), stages, writing.signature_of(signature), many=writing.batching_of(many))
        if single_file is not None:
            given = replace(given, single_file=single_file)
        ranker = self.at(self.interface.candidates if candidates is None else candidates)
        return writing.export(ranker, given, overwrite, example_inputs)

    # -------------------------------------------------------------------------------------------------- inputs

    def _flat(self, inputs: Mapping[str, Any], role: Role) -> Mapping[str, Tensor]:
        """Inputs by path, checked."""
        if torch.compiler.is_compiling():
            return flatten(inputs)
        return self.inputs.checked(role, inputs, self.variant.device)

    # -------------------------------------------------------------------------------------------------- weights

    def refresh(self) -> None:
        """Runs the weight stage again. Called on its own when a parameter has changed, or moved."""
        known: dict[str, Tensor] = {}
        for variant in self._variants:
            variant.refresh(known)

    def _apply(self, fn: Any, recurse: bool = True) -> Ranker:
        super()._apply(fn, recurse)
        self.refresh()
        return self

    def load_original_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """New weights under the original model's names; nothing is optimised again.

        Raises StageError where a weight is missing or has another shape, or where an index or a mask differs: laws look
        into those, so other values are another program.
        """
        own = self.weights()
        names = list(own)
        missing = [name for name in names if name not in state_dict]
        wrong = [n for n in names if n in state_dict and state_dict[n].shape != own[n].shape]
        if missing or wrong:
            raise StageError(
                f"the state dict does not fit: missing {missing}, of another shape {wrong}.\n"
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
