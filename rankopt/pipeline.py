"""`optimize`: the straight line from a model to a ranker.

capture -> roles -> plans -> stages -> ranker -> verify -> report
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from rankopt.calls import example_call
from rankopt.capture import CapturedModel, capture, name_inputs
from rankopt.errors import InputError, RolesError, VerificationError
from rankopt.importing.model import OnnxModel, import_onnx
from rankopt.interface import InputInfo, Interface
from rankopt.plan import Plan, alternatives, unshared
from rankopt.prices import DEFAULT, Profile, profile_of
from rankopt.ranker import Ranker
from rankopt.report.facts import build_report
from rankopt.selectors import InputRole, Role, resolve_roles
from rankopt.stages import split
from rankopt.verify import verify

Program = nn.Module | fx.GraphModule | ExportedProgram
Model = Program | onnx.ModelProto | str | os.PathLike[str]
Selectors = str | Sequence[str]

SMALL = (1, 64)
"""Candidates of the requests with which `optimize` verifies."""


def optimize(
    model: Model,
    context: Selectors | Mapping[str, Any],
    target: Selectors | Mapping[str, Any] | None = None,
    *,
    example_inputs: Any = None,
    candidates: int = 512,
    backend: str | Profile = DEFAULT,
    passes: Collection[str] | None = None,
    verification: bool = True,
) -> Ranker:
    """Rewrites a ranking model so that what depends on the context alone is computed once per request.

        ranker = rankopt.optimize(model, context={"user_id": u}, target={"item_id": i})
        ranker = rankopt.optimize(model, context=["user_*", "x[:, :20]"], example_inputs=rows)

    Args:
        model: an nn.Module in eval mode, an fx.GraphModule or an ExportedProgram over rows; an ONNX model, or its path.
        context: examples of the context inputs by path, each [1, ...]; or selectors of them (see `rankopt.selectors`).
        target: examples of the target inputs, each [N, ...]; or selectors. What no selector names is target.
        example_inputs: with selectors, the arguments of one call on rows: a tuple, a dict of keywords, or a tensor.
        candidates: the number of candidates to optimise for. The ranker takes any number.
        backend: where the ranker will run, "eager" or "onnxruntime", or a profile of prices that was measured there.
        passes: names of the passes that may be used; all by default.
        verification: compare the ranker with the original on one small request, in float64 and as served. A plan that
            does not agree is dropped for the next one; "unchanged" is always among them.

    Returns a Ranker, whose `report` says what was saved, what was not, and why. Raises RolesError, InputError,
    CaptureError; VerificationError if no plan agrees with the original.
    """
    profile = profile_of(backend)
    captured, roles = capture_with_roles(model, context, target, example_inputs)
    plans = alternatives(captured, roles, candidates, passes, profile)
    for plan in plans:
        ranker = build(captured, roles, plan)
        result = verify(captured, ranker, candidates=SMALL, plan=plan) if verification else None
        if result is None or result.identical:
            plain = unshared(captured, roles, candidates, passes, profile)
            ranker.report = build_report(captured, roles, plan, plans, plain, ranker.stages, result)
            return ranker
    raise VerificationError(
        "no plan gives the scores of the model, not even the unchanged one.\n"
        "  fix: check that the model is deterministic: two calls on the same rows must give the same scores"
    )


def explain(
    model: Model,
    context: Selectors | Mapping[str, Any],
    target: Selectors | Mapping[str, Any] | None = None,
    *,
    example_inputs: Any = None,
    candidates: int = 512,
    backend: str | Profile = DEFAULT,
    passes: Collection[str] | None = None,
) -> Any:
    """The report of `optimize`, without verification and without a ranker."""
    profile = profile_of(backend)
    captured, roles = capture_with_roles(model, context, target, example_inputs)
    plans = alternatives(captured, roles, candidates, passes, profile)
    stages = split(plans[0].exprs, plans[0].outputs, plans[0].workspace.program.constants)
    plain = unshared(captured, roles, candidates, passes, profile)
    return build_report(captured, roles, plans[0], plans, plain, stages, None)


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


def build(captured: CapturedModel, roles: Sequence[InputRole], plan: Plan) -> Ranker:
    """The ranker that runs `plan`."""
    stages = split(plan.exprs, plan.outputs, plan.workspace.program.constants)
    inputs = tuple(
        InputInfo(item.name, tuple(item.shape[1:]) if item.shape else None, item.dtype) for item in captured.inputs
    )
    interface = Interface(
        inputs,
        tuple(roles),
        captured.call,
        captured.out_spec,
        captured.output_constants,
        plan.candidates,
        plan.policy.name,
    )
    ranker = Ranker(stages, interface, {weight.name: weight.tensor for weight in captured.weights})
    ranker.attach(captured, plan)
    return ranker


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
    model: Program, context: Mapping[str, Any], target: Mapping[str, Any]
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
