"""The inputs of a call for many requests, checked: how many requests there are, and whose each row is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rankopt.errors import InputError
from rankopt.inputs import Inputs, require_kind, require_tensor
from rankopt.interface import InputInfo
from rankopt.many.rows import Batch
from rankopt.selectors import Role

Device = torch.device | None


class ManyInputs:
    """What a call for many requests must pass: the context [B, ...], and the target [B, N, ...] or [R, ...]."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    def context(self, inputs: Mapping[str, Any], device: Device) -> tuple[Mapping[str, Tensor], int | None]:
        """The context by path, and the number of requests: None where every input is a scalar."""
        flat, sizes = self._checked(Role.CONTEXT, inputs, ("B",), device)
        return flat, None if sizes is None else sizes[0]

    def dense(self, inputs: Mapping[str, Any], device: Device) -> tuple[Mapping[str, Tensor], tuple[int, int]]:
        """The target [B, N, ...] by path, and both numbers."""
        flat, sizes = self._checked(Role.TARGET, inputs, ("B", "N"), device)
        if sizes is None:
            raise InputError("no target input has rows.\n  fix: call the ranker once per request")
        return flat, (sizes[0], sizes[1])

    def rows(self, inputs: Mapping[str, Any], device: Device) -> tuple[Mapping[str, Tensor], int]:
        """The target [R, ...] by path, and the number of rows."""
        flat = self._inputs.checked(Role.TARGET, inputs, device)
        return flat, next((tensor.shape[0] for tensor in flat.values() if tensor.dim()), 0)

    def _checked(
        self, role: Role, inputs: Mapping[str, Any], leading: tuple[str, ...], device: Device
    ) -> tuple[Mapping[str, Tensor], tuple[int, ...] | None]:
        """The inputs by path, and the sizes of the dims that lead all of them; None where all are scalars."""
        flat, count, sizes = self._inputs.named(role, inputs), len(leading), None
        for info in self._inputs.infos(role):
            tensor = flat[info.name]
            found = tensor.shape if isinstance(tensor, Tensor) else None
            if found is not None and info.shape is not None:
                sizes = found[:count] if sizes is None else sizes
                fits = found[:count] == sizes and found[count:] == info.shape and len(found) >= count
            else:
                fits = info.shape is None and found == ()
            if (
                found is None
                or not fits
                or tensor.dtype is not info.dtype
                or tensor.device != (device or tensor.device)
            ):
                self._explain_misfit(role, flat, leading, device)
        return flat, sizes

    def _explain_misfit(self, role: Role, flat: Mapping[str, Any], leading: tuple[str, ...], device: Device) -> None:
        """Raises InputError with what is wrong, if something is."""
        sizes: dict[str, list[int]] = {}
        for info in self._inputs.infos(role):
            tensor = flat[info.name]
            require_tensor(info, tensor)
            _require_shape(info, tensor, leading)
            require_kind(info, tensor, device)
            if info.shape is not None:
                sizes[info.name] = list(tensor.shape[: len(leading)])
        if len({tuple(found) for found in sizes.values()}) > 1:
            listed = ", ".join(f"'{name}' has {found}" for name, found in sizes.items())
            raise InputError(
                f"the {role.value} inputs must be of the same requests, but {listed}.\n"
                f"  expected: [{', '.join(leading)}, ...]\n  fix: pass the same number of rows in every input"
            )


def _require_shape(info: InputInfo, tensor: Tensor, leading: Sequence[str]) -> None:
    expected = () if info.shape is None else (*leading, *info.shape)
    found = tuple(tensor.shape)
    if len(found) != len(expected) or found[len(leading) :] != expected[len(leading) :]:
        shape = ", ".join(str(size) for size in expected)
        raise InputError(
            f"'{info.name}' has the shape {list(found)}, expected [{shape}].\n"
            "  fix: pass [B, N, ...] for N candidates per request, or rows [R, ...] with request_of or lengths"
        )


def require_same_number(context: int | None, target: int) -> None:
    """Raises InputError where context and target have different numbers of requests."""
    if context is not None and context != target:
        raise InputError(
            f"the context is of {context} requests, the target of {target}.\n"
            "  fix: pass the candidates of every request: [B, N, ...], or rows with request_of or lengths"
        )


def batch_of(rows: int, requests: int | None, request_of: Any, lengths: Any, device: torch.device | None) -> Batch:
    """Whose each row is. `requests`: how many the context is of; None where nothing says.

    Raises InputError where both or neither are given, where a request is out of range, or where lengths do not add up.
    """
    if (request_of is None) == (lengths is None):
        raise InputError("rows of several requests need request_of or lengths, one of them.\n  fix: request_of=index")
    if lengths is not None:
        return _by_lengths(rows, requests, _vector("lengths", lengths, device))
    index = _vector("request_of", request_of, device)
    if len(index) != rows:
        raise InputError(
            f"request_of has {len(index)} numbers, but there are {rows} rows of candidates.\n"
            "  fix: one number per row: the place of its request in the context"
        )
    low, high = (int(bound) for bound in index.aminmax()) if rows else (0, -1)
    if low < 0 or (requests is not None and high >= requests):
        found = low if low < 0 else high
        many = "the" if requests is None else f"{requests}"
        raise InputError(
            f"request_of names request {found}, which is not among {many} requests of the context.\n"
            f"  expected: 0 to {'B' if requests is None else requests} - 1\n  fix: count requests from 0"
        )
    counts = torch.bincount(index, minlength=high + 1 if requests is None else requests)
    return Batch(index, tuple(counts.tolist()))


def require_one_request(rows: int, request_of: Any, lengths: Any, device: torch.device | None) -> None:
    """Raises InputError like `batch_of` where not all rows are of the one request. Nothing is counted or indexed."""
    given = lengths if request_of is None else request_of
    if (request_of is None) != (lengths is None) and isinstance(given, Tensor) and given.dtype is torch.int64:
        if request_of is None and given.shape == (1,) and given.item() == rows:
            return
        if lengths is None and given.shape == (rows,) and not torch.count_nonzero(given):
            return
    batch_of(rows, 1, request_of, lengths, device)


def _by_lengths(rows: int, requests: int | None, lengths: Tensor) -> Batch:
    counts = tuple(lengths.tolist())
    require_same_number(requests, len(counts))
    if sum(counts) != rows or any(count < 0 for count in counts):
        raise InputError(
            f"the lengths add up to {sum(counts)}, but there are {rows} rows of candidates.\n"
            "  fix: lengths[b] is the number of candidates of request b, 0 or more"
        )
    if len(counts) == 1:
        return Batch(lengths.new_zeros(rows), counts)
    index = torch.arange(len(counts), device=lengths.device).repeat_interleave(lengths, output_size=rows)
    return Batch(index, counts)


def _vector(name: str, given: Any, device: torch.device | None) -> Tensor:
    """Integers [n] on the device of the weights."""
    tensor = torch.as_tensor(given, device=device)
    if tensor.dim() == 1 and not len(tensor):
        return tensor.to(torch.int64)
    if tensor.dim() != 1 or tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise InputError(
            f"{name} is {tensor.dtype} {list(tensor.shape)}, expected integers, one dim.\n"
            f"  fix: {name}=torch.tensor([0, 0, 1])"
        )
    return tensor.to(torch.int64)
