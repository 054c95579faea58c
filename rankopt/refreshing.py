"""New weights for a saved ranker: `rankopt refresh`. Nothing is optimised again, and nothing is written unchecked.

The original is not in a ranker's file. Where it is given (a retrained model, or the old one that takes the new weights)
the refreshed ranker is compared with it. Otherwise the ranker is compared with itself in float64: that finds weights
with which its type does not suffice, not weights of another model with the same names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.export import ExportedProgram

from rankopt.agreement import allowed_error
from rankopt.archive import Kind, kind_of, read_program, refuse_exported
from rankopt.artefacts.comparison import references, requests_for
from rankopt.errors import FormatError, InputError, StageError, VerificationError
from rankopt.importing.model import OnnxModel, import_onnx
from rankopt.ranker import Ranker
from rankopt.tensors import misfit

Original = nn.Module | ExportedProgram


def read_checkpoint(path: Path, trust: bool) -> tuple[Mapping[str, Tensor], Original | None]:
    """The weights in a file by their names, and the model itself where the file is one.

    A state dict by torch.save or in safetensors, a torch.export program, an ONNX model; or a saved ranker, which has
    the weights alone. Raises FormatError for anything else.
    """
    refuse_exported(path)
    if path.suffix.lower() == ".onnx":
        onnx_model = import_onnx(path)
        return onnx_model.state_dict(), onnx_model
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path), None
        except (SafetensorError, OSError) as error:
            raise FormatError(
                f"{path} cannot be read: {error}.\n  fix: safetensors.torch.save_file(weights, path)"
            ) from error
    if kind_of(path) is Kind.PICKLE:
        return _read_state_dict(path), None
    if kind_of(path) is Kind.RANKER:  # its tensors have the names of the model's, but it is not the model
        return read_program(path, trust).state_dict, None
    program = read_program(path, trust)
    tensors: dict[str, Any] = {**program.state_dict, **program.constants}
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}, program


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    fix = "  fix: torch.save(model.state_dict(), path)"
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the safe unpickler stumbles in many ways over what is more than tensors
        raise FormatError(
            f"{path} is no state dict: it holds more than tensors, or is damaged.\n"
            f"  expected: a dict of tensors by name\n{fix}"
        ) from error
    if not isinstance(data, Mapping):
        raise FormatError(f"{path} holds a {type(data).__name__}.\n  expected: a dict of tensors by name\n{fix}")
    others = [str(name) for name, value in data.items() if not isinstance(value, Tensor)]
    if others:
        raise FormatError(
            f"{path} holds more than weights: {', '.join(others[:8])}.\n  expected: a dict of tensors by name\n"
            "  fix: torch.save(checkpoint[KEY_OF_THE_STATE_DICT], path)"
        )
    return data


def put_weights(model: Original, weights: Mapping[str, Tensor]) -> None:
    """The weights into the original, in place. Raises StageError where they are not its own."""
    if isinstance(model, OnnxModel):
        raise InputError(
            "an ONNX model takes no other weights.\n"
            "  fix: give the retrained model, a .onnx file, as the checkpoint, and leave out --model"
        )
    own = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    odd = [f"missing {name}" for name in own if name not in weights]
    found = [(name, misfit(tensor, weights[name])) for name, tensor in own.items() if name in weights]
    odd += [f"{name} {why}" for name, why in found if why is not None]
    odd += [f"not in the model: {name}" for name in weights if name not in own and name not in _not_persistent(model)]
    if odd:
        raise StageError(
            f"the checkpoint is not one of the model that was given.\n  found: {'; '.join(odd[:8])}\n"
            "  fix: pass the model that the ranker was made of"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _not_persistent(model: Original) -> set[str]:
    """What a checkpoint of a model may hold beside its state dict."""
    if isinstance(model, ExportedProgram):
        return set(model.constants)
    return {name for name, _ in model.named_buffers(remove_duplicate=False)}


def put(ranker: Ranker, weights: Mapping[str, Tensor]) -> list[str]:
    """The weights into a ranker; returns the names of those that it does not read.

    Its report tells no longer how well it agreed with the old ones. Raises StageError for weights that do not fit,
    or are no numbers.
    """
    before = {name: _odd_numbers(tensor) for name, tensor in ranker.weights().items()}
    ranker.load_original_state_dict(weights)
    _require_numbers(ranker, before)
    if ranker.report is not None:
        ranker.report = replace(ranker.report, verification=None)
    return [str(name) for name in weights if name not in before]


def _odd_numbers(tensor: Tensor) -> tuple[int, int]:
    """How many numbers of a tensor are NaN, and how many infinite."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0, 0
    return int(tensor.isnan().sum()), int(tensor.isinf().sum())


def _require_numbers(ranker: Ranker, before: Mapping[str, tuple[int, int]]) -> None:
    """Raises StageError for weights with NaN or infinities, as a diverged training leaves them.

    Where the old weight of the name had the like, in a mask or the logarithm of a count, they are the model's own.
    Looked for after the cast to the type of the ranker, whose largest number may be too small.
    """
    found: list[str] = []
    for name, tensor in ranker.weights().items():
        pairs = zip(("NaN", "infinite"), before[name], _odd_numbers(tensor), strict=True)
        found += [f"{now:,} {what} in {name} ({tensor.dtype})" for what, was, now in pairs if now and not was]
    if found:
        raise StageError(
            "the checkpoint has weights that are no finite numbers, so nothing was written.\n"
            f"  expected: finite numbers, as before\n  found: {'; '.join(found[:8])}\n"
            "  fix: take a checkpoint from before the training diverged; if they are meant, optimize the model again"
        )


def require_precision(ranker: Ranker, example_inputs: Any = None) -> None:
    """Raises VerificationError where the ranker as served is far from itself in float64."""
    for reference in references(ranker, requests_for(ranker, example_inputs)):
        pairs = list(zip(reference.original, reference.truth, strict=True))
        lost = sum(int((score.isfinite() != truth.isfinite()).sum()) for score, truth in pairs)
        dtypes = [score.dtype for score, _ in pairs if score.is_floating_point()]
        allowed = max((float(torch.finfo(dtype).eps ** 0.5) for dtype in dtypes), default=0.0)
        if ranker.state_dtype is not None:
            allowed = max(allowed, allowed_error(ranker.state_dtype))
        error = reference.agreement(reference.original).original_error
        if lost or error > allowed:
            raise VerificationError(
                "with these weights the ranker as served is far from the same in float64, so nothing was written.\n"
                f"  found: {lost} scores that are not finite, an error of {error:.1e} of the largest score, "
                f"at {reference.request.candidates:,} candidates\n"
                f"  expected: an error of at most {allowed:.1e}\n"
                "  fix: check the checkpoint; --model FILE compares with the model, which may be no better"
            )
