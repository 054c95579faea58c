"""`optimize`: the straight line from a model to a ranker.

capture -> roles -> plans -> stages -> ranker -> verify -> report
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from rankopt.agreement import allowed_error
from rankopt.backends import DEFAULT, profile_of
from rankopt.calls import example_call
from rankopt.capture import CapturedModel, capture, name_inputs
from rankopt.envelope import Piece, envelope, plans_for, range_of
from rankopt.errors import InputError, RolesError, VerificationError
from rankopt.expressions import reachable
from rankopt.importing.model import OnnxModel, import_onnx
from rankopt.interface import InputInfo, Interface, Range
from rankopt.narrow import require_state_dtype
from rankopt.plan import Plan, references
from rankopt.prices import Profile
from rankopt.program import Program
from rankopt.ranker import Ranker
from rankopt.report.facts import build_report, with_rounding
from rankopt.selectors import InputRole, Role, resolve_roles
from rankopt.stages import Names, Stages, split
from rankopt.verification import Verification
from rankopt.verify import numbers, verify

TorchModel = nn.Module | fx.GraphModule | ExportedProgram
Model = TorchModel | onnx.ModelProto | str | os.PathLike[str]
Selectors = str | Sequence[str]

SMALL = (1, 64)
"""Candidates of the requests with which `optimize` verifies."""

CAREFUL = 1.5
"""How many times further from the truth than the original a plan may be here: verified with other requests it shall be
within what is allowed as well."""

ROUNDED = (1, 64, 1000)
"""Those with which it measures what a rounded state does to the scores: enough for an order of the best hundred."""


def optimize(
    model: Model,
    context: Selectors | Mapping[str, Any],
    target: Selectors | Mapping[str, Any] | None = None,
    *,
    example_inputs: Any = None,
    candidates: int | tuple[int, int] = 512,
    backend: str | Profile = DEFAULT,
    threads: int | None = None,
    passes: Collection[str] | None = None,
    verification: bool = True,
    state_dtype: torch.dtype | None = None,
) -> Ranker:
    """Rewrites a ranking model so that what depends on the context alone is computed once per request.

        ranker = rankopt.optimize(model, context={"user_id": u}, target={"item_id": i})
        ranker = rankopt.optimize(model, context=["user_*", "x[:, :20]"], example_inputs=rows)

    Args:
        model: an nn.Module in eval mode, an fx.GraphModule or an ExportedProgram over rows; an ONNX model, or its path.
        context: examples of the context inputs by path, each [1, ...]; or selectors of them (see `rankopt.selectors`).
        target: examples of the target inputs, each [N, ...]; or selectors. What no selector names is target.
        example_inputs: with selectors, the arguments of one call on rows: a tuple, a dict of keywords, or a tensor.
        candidates: the number of candidates to optimise for, or a range of them, (smallest, largest), over which the
            ranker may keep several plans and choose by the number. It takes any number.
        backend: what will run the ranker, "eager", "inductor" (torch.compile) or "onnxruntime", or a profile of prices
            that was measured there.
        threads: how many threads will work on one request there; by default those of the prices, which are 2.
        passes: names of the passes that may be used; all by default.
        verification: compare the ranker with the original on one small request, in float64 and as served. A plan that
            does not agree is dropped for the next one; "unchanged" is always among them.
        state_dtype: torch.float16 or torch.bfloat16 to keep the floating tensors of the state in. The only option that
            is not exact: the scores move, and the report says by how much on example requests. Off by default.

    Returns a Ranker, whose `report` says what was saved, what was not, and why. Raises RolesError, InputError,
    CaptureError; VerificationError if no plan agrees with the original, or if rounding the state moves the scores by
    more than its own error explains; StageError where `state_dtype` cannot hold a number of the state.
    """
    if state_dtype is not None:
        require_state_dtype(state_dtype)
    profile = profile_of(backend, threads)
    first, last = range_of(candidates)
    captured, roles = capture_with_roles(model, context, target, example_inputs)
    plans = plans_for(captured, roles, first, last, passes, profile)
    dropped: list[Plan] = []
    while left := [plan for plan in plans if not any(plan is other for other in dropped)]:
        pieces = envelope(left, first, last)
        ranker = build(captured, roles, pieces)
        used = [piece.plan for piece in pieces]
        result = verify(captured, ranker, 1, numbers(ranker.interface, SMALL), plans=used) if verification else None
        if result is None or _is_exact(result, used[ranker.interface.place(result.request.candidates)]):
            others = references(captured, roles, last, passes, profile)
            ranker.report = build_report(captured, roles, pieces, plans, dropped, others, ranker.stages, result)
            return ranker if state_dtype is None else _rounded(captured, ranker, state_dtype)
        dropped.append(used[ranker.interface.place(result.request.candidates)])
    raise VerificationError(
        "no plan gives the scores of the model, not even the unchanged one.\n"
        "  fix: check that the model is deterministic: two calls on the same rows must give the same scores"
    )


def _is_exact(result: Verification, plan: Plan) -> bool:
    """Whether a ranker may be kept, of which `plan` did worst."""
    return result.identical and (result.agreement.ratio <= CAREFUL or not plan.policy.rewrites)


def _rounded(captured: CapturedModel, exact: Ranker, state_dtype: torch.dtype) -> Ranker:
    """A ranker with its state rounded, and what that does to the scores in its report. See `optimize`."""
    ranker = exact.with_state_dtype(state_dtype)
    found = verify(captured, ranker, 1, numbers(ranker.interface, ROUNDED))
    if not found.identical:
        reasons = "\n  ".join(found.agreement.reasons())
        raise VerificationError(
            f"a state in {state_dtype} changes the scores by more than its rounding explains.\n"
            f"  found: {reasons}\n"
            f"  expected: an error of at most {allowed_error(state_dtype):.1e} of the largest score\n"
            "  fix: the other type (float16 has more digits, bfloat16 more range), or leave state_dtype out"
        )
    assert exact.report is not None  # `optimize` has made it
    ranker.report = with_rounding(exact.report, ranker.stages, state_dtype, found)
    return ranker


def explain(
    model: Model,
    context: Selectors | Mapping[str, Any],
    target: Selectors | Mapping[str, Any] | None = None,
    *,
    example_inputs: Any = None,
    candidates: int | tuple[int, int] = 512,
    backend: str | Profile = DEFAULT,
    threads: int | None = None,
    passes: Collection[str] | None = None,
) -> Any:
    """The report of `optimize`, without verification and without a ranker."""
    profile = profile_of(backend, threads)
    first, last = range_of(candidates)
    captured, roles = capture_with_roles(model, context, target, example_inputs)
    plans = plans_for(captured, roles, first, last, passes, profile)
    pieces = envelope(plans, first, last)
    plan = pieces[-1].plan
    stages = split(plan.exprs, plan.outputs, plan.workspace.program.constants)
    others = references(captured, roles, last, passes, profile)
    return build_report(captured, roles, pieces, plans, (), others, stages, None)


def capture_with_roles(
    model: Model,
    context: Selectors | Mapping[str, Any],
    target: Selectors | Mapping[str, Any] | None,
    example_inputs: Any,
) -> tuple[CapturedModel, tuple[InputRole, ...]]:
    """The captured model, and the role of each of its inputs."""
    if isinstance(model, str | os.PathLike | onnx.ModelProto):
        return capture_with_roles(import_onnx(model), context, target, example_inputs)
    if isinstance(context, Mapping):
        if example_inputs is not None or (target is not None and not isinstance(target, Mapping)):
            raise RolesError(
                "context is given by examples, so target must be too, and example_inputs is not needed.\n"
                "  fix: optimize(model, context={name: tensor}, target={name: tensor})"
            )
        return _by_examples(model, context, target or {})
    if isinstance(target, Mapping):
        raise RolesError("context is given by selectors, target by examples.\n  fix: give both in the same way")
    if example_inputs is None and not isinstance(model, ExportedProgram | OnnxModel):
        raise InputError(
            "selectors need example rows.\n  fix: optimize(model, context=[...], example_inputs=(tensor, ...))"
        )
    args, kwargs = example_call(example_inputs)
    shapes = {name: tuple(tensor.shape) for name, tensor in name_inputs(model, args, kwargs).items()}
    roles = resolve_roles(shapes, _listed(context), None if target is None else _listed(target))
    _require_target(roles)
    return capture(model, args, kwargs), roles


def build(captured: CapturedModel, roles: Sequence[InputRole], plans: Plan | Sequence[Piece]) -> Ranker:
    """The ranker that runs a plan, or several, each for its numbers of candidates."""
    pieces = [Piece(plans.candidates, plans.candidates, plans)] if isinstance(plans, Plan) else plans
    inputs = tuple(
        InputInfo(item.name, tuple(item.shape[1:]) if item.shape else None, item.dtype) for item in captured.inputs
    )
    interface = Interface(
        inputs,
        tuple(roles),
        captured.call,
        captured.out_spec,
        captured.output_constants,
        tuple(Range(piece.first, piece.last, piece.plan.policy.name) for piece in pieces),
    )
    used = [piece.plan for piece in pieces]
    ranker = Ranker(_stages(used), interface, {weight.name: weight.tensor for weight in captured.weights})
    ranker.attach(captured, used)
    return ranker


def _stages(plans: Sequence[Plan]) -> list[Stages]:
    """The stages of plans, of which several become one program: what they have in common is kept once."""
    if len(plans) == 1:
        (plan,) = plans
        return [split(plan.exprs, plan.outputs, plan.workspace.program.constants)]
    program, names = Program(), Names()
    found: list[Stages] = []
    for plan in reversed(plans):  # in which order a saved ranker is read, too
        own = program.adopt(plan.exprs, plan.workspace.program.constants)
        outputs = [own[expr.serial] for expr in plan.outputs]
        found.insert(0, split(reachable(outputs), outputs, program.constants, names))
    return found


def _require_target(roles: Sequence[InputRole]) -> None:
    if all(role.role is Role.CONTEXT for role in roles):
        raise RolesError(
            "every input is context, so all candidates would get the same score.\n"
            f"  inputs: {', '.join(role.name for role in roles)}\n"
            "  fix: leave the inputs that differ between candidates out of `context`"
        )


def _listed(selectors: Selectors) -> Sequence[str]:
    return [selectors] if isinstance(selectors, str) else selectors


def _by_examples(
    model: TorchModel, context: Mapping[str, Any], target: Mapping[str, Any]
) -> tuple[CapturedModel, tuple[InputRole, ...]]:
    """Roles and rows from a request: context tensors [1, ...] are repeated for the target rows."""
    rows = _rows(target)
    kwargs: dict[str, Any] = {}
    for source, is_context in ((context, True), (target, False)):
        for path, value in source.items():
            _put(kwargs, path.split("."), _tiled(path, value, rows) if is_context else value)
    named = name_inputs(model, (), kwargs)
    in_context = {path for path, _ in _paths(context)}
    roles = tuple(
        InputRole(name, Role.CONTEXT if name in in_context or not tensor.ndim else Role.TARGET)
        for name, tensor in named.items()
    )
    _require_target(roles)
    return capture(model, (), kwargs), roles


def _paths(inputs: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in inputs.items():
        path = f"{prefix}{name}"
        found.extend(_paths(value, f"{path}.") if isinstance(value, Mapping) else [(path, value)])
    return found


def _rows(target: Mapping[str, Any]) -> int:
    counts = {path: value.shape[0] for path, value in _paths(target) if isinstance(value, Tensor) and value.ndim}
    if not counts:
        raise RolesError("no target input has rows.\n  fix: target={name: tensor of shape [N, ...]}")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{path}' has {count}" for path, count in counts.items())
        raise InputError(f"the target inputs must have the same number of rows, but {listed}.\n  fix: pass one batch")
    return next(iter(counts.values()))


def _tiled(path: str, value: Any, rows: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _tiled(f"{path}.{name}", inner, rows) for name, inner in value.items()}
    if not isinstance(value, Tensor) or not value.ndim:
        return value
    if value.shape[0] != 1:
        raise InputError(
            f"the context is one row per request, but '{path}' has {value.shape[0]}.\n  fix: pass it once, [1, ...]"
        )
    return value.expand(rows, *value.shape[1:]).contiguous()


def _put(kwargs: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for step in path[:-1]:
        kwargs = kwargs.setdefault(step, {})
    if isinstance(value, Mapping) and isinstance(kwargs.get(path[-1]), dict):
        for name, inner in value.items():
            _put(kwargs[path[-1]], [name], inner)
        return
    if path[-1] in kwargs:
        raise RolesError(
            f"'{path[-1]}' is both context and target.\n"
            "  fix: a packed input needs selectors: optimize(model, context=['x[:, :20]'], example_inputs=rows)"
        )
    kwargs[path[-1]] = dict(value) if isinstance(value, Mapping) else value
