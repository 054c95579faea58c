"""The inputs of a call by path, checked: what was expected, what was found, and how to put it right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rankopt.errors import InputError
from rankopt.interface import InputInfo, Interface
from rankopt.selectors import Role


class Inputs:
    """What a call must pass: the context [1, ...], the target [N, ...], scalars as they are."""

    def __init__(self, interface: Interface) -> None:
        self._infos = {role: interface.expected(role) for role in (Role.CONTEXT, Role.TARGET)}
        self._expected = {
            role: {info.name: (info.dtype, info.shape) for info in infos} for role, infos in self._infos.items()
        }

    def checked(self, role: Role, inputs: Mapping[str, Any], device: torch.device | None) -> Mapping[str, Tensor]:
        """The context or the target by path. `device` is where the weights are; None where there are none.

        Raises InputError for a missing or unknown input, a wrong type, shape, device or number of rows.
        """
        expected, inputs = self._expected[role], self.named(role, inputs)
        rows = 1 if role is Role.CONTEXT else None
        for name, (dtype, shape) in expected.items():
            tensor = inputs[name]
            found = tensor.shape if isinstance(tensor, Tensor) else ()
            if rows is None and found:
                rows = found[0]
            fits = found[1:] == shape and found[0] == rows if shape is not None and found else found == shape
            if not fits or tensor.dtype is not dtype or tensor.device != (device or tensor.device):
                self._explain_misfit(role, inputs, device)
        return inputs

    def named(self, role: Role, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The context or the target by path, only its names checked. Raises InputError."""
        expected = self._expected[role]
        if inputs.keys() != expected.keys():
            inputs = flatten(inputs)
            if inputs.keys() != expected.keys():
                raise InputError(_names_message(role, set(inputs), list(expected)))
        return inputs

    def infos(self, role: Role) -> list[InputInfo]:
        """What the context or the target consists of, in call order."""
        return self._infos[role]

    def _explain_misfit(self, role: Role, inputs: Mapping[str, Tensor], device: torch.device | None) -> None:
        """Raises InputError with what is wrong, if something is."""
        rows: dict[str, int] = {}
        for info in self._infos[role]:
            _check(role, info, inputs[info.name], device)
            if info.shape is not None:
                rows[info.name] = inputs[info.name].shape[0]
        if role is Role.TARGET and len(set(rows.values())) > 1:
            listed = ", ".join(f"'{name}' has {count}" for name, count in rows.items())
            raise InputError(
                f"the target inputs must have one row per candidate, all the same number, but {listed}.\n"
                "  fix: pass the same candidates to every target input"
            )


def flatten(inputs: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Nested inputs by path."""
    flat: dict[str, Tensor] = {}
    for name, value in inputs.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def require_same(interface: Interface, found: list[InputInfo]) -> None:
    """Raises InputError where a model has other inputs than the one that was optimised."""
    own = list(interface.inputs)
    if own != found:
        raise InputError(
            "the model is not the one that was optimised: its inputs differ.\n"
            f"  expected: {_listed(own)}\n  found: {_listed(found)}\n"
            "  fix: pass the original model"
        )


def _check(role: Role, info: InputInfo, tensor: Any, device: torch.device | None) -> None:
    require_tensor(info, tensor)
    expected = () if info.shape is None else ("1" if role is Role.CONTEXT else "N", *info.shape)
    found = tuple(tensor.shape)
    fits = len(found) == len(expected) and found[1:] == tuple(expected[1:])
    if fits and role is Role.CONTEXT and found[:1] not in ((), (1,)):
        raise InputError(
            f"the context is one row per request, but '{info.name}' has {found[0]}.\n"
            "  fix: pass the context once, [1, ...]; from_rows() takes tiled rows"
        )
    if not fits:
        shape = ", ".join(str(size) for size in expected)
        raise InputError(
            f"'{info.name}' has the shape {list(found)}, expected [{shape}].\n  fix: pass rows like the example's"
        )
    require_kind(info, tensor, device)


def require_tensor(info: InputInfo, value: Any) -> None:
    """Raises InputError for anything else."""
    if not isinstance(value, Tensor):
        raise InputError(
            f"'{info.name}' must be a tensor, found {type(value).__name__}.\n  fix: torch.as_tensor(value)"
        )


def require_kind(info: InputInfo, tensor: Tensor, device: torch.device | None) -> None:
    """Raises InputError for another element type or device."""
    if tensor.dtype != info.dtype:
        raise InputError(
            f"'{info.name}' is {tensor.dtype}, expected {info.dtype}.\n  fix: convert it, .to({info.dtype})"
        )
    if device is not None and tensor.device != device:
        raise InputError(
            f"'{info.name}' is on {tensor.device}, the ranker on {device}.\n  fix: move one of them, .to(device)"
        )


def _listed(inputs: list[InputInfo]) -> str:
    return ", ".join(
        f"{info.name} {'scalar' if info.shape is None else ['R', *info.shape]} {info.dtype}" for info in inputs
    )


def _names_message(role: Role, found: set[str], expected: list[str]) -> str:
    missing = [name for name in expected if name not in found]
    unknown = sorted(found - set(expected))
    return (
        f"the {role.name.lower()} inputs do not fit: missing {missing}, unknown {unknown}.\n"
        f"  expected: {', '.join(expected)}\n"
        "  fix: pass a dict by input path, context inputs in the first, target inputs in the second"
    )
