"""Where a model comes from: its file, and its example rows in another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from rankopt.archive import Kind, kind_of, read_program
from rankopt.errors import FormatError, InputError
from rankopt.importing.model import import_onnx


@dataclass(frozen=True, slots=True)
class Source:
    """A model to be read: its file, example rows, and whether its author is trusted."""

    path: Path
    example: Path | None = None
    trust: bool = False


def read_model(source: Source) -> tuple[nn.Module | ExportedProgram, Any]:
    """The model in a file, and its example rows (None for a program or an ONNX model, which bring their own).

    Raises FormatError where the file is no model, or one that would have to be trusted.
    """
    rows = None if source.example is None else read_rows(source.example)
    if source.path.suffix.lower() == ".onnx":
        return import_onnx(source.path), rows
    kind = kind_of(source.path)
    if kind is Kind.RANKER:
        raise FormatError(f"{source.path} is an optimised ranker already.\n  fix: give the original model")
    if kind is not Kind.PICKLE:
        return read_program(source.path, source.trust), rows
    if not source.trust:
        raise FormatError(
            f"{source.path} is {kind.value}, which runs code when it is read.\n"
            "  fix: torch.export.save(program, 'model.pt2'); or --trust, if you know who made it"
        )
    if rows is None:
        raise InputError(
            f"{source.path} is {kind.value}, which has no example rows.\n"
            "  fix: torch.save((tensor, ...), 'rows.pt'), and --example rows.pt"
        )
    return _unpickled(source.path), rows


def _unpickled(path: Path) -> nn.Module:
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling runs the model's own code
        raise FormatError(
            f"{path} cannot be unpickled: {error}.\n"
            "  fix: run where its classes can be imported (PYTHONPATH=...), or torch.export.save it there"
        ) from error
    if isinstance(model, nn.Module):
        return model
    raise FormatError(
        f"{path} holds a {type(model).__name__}, no model.\n"
        "  fix: save the module itself, torch.save(model, ...), not its state dict"
    )


def read_rows(path: Path) -> Any:
    """Example rows that torch.save or numpy.savez wrote. Raises InputError where the file holds none."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the safe unpickler stumbles in many ways over what is no pickle
        raise InputError(
            f"{path} holds no example rows: {type(error).__name__}.\n"
            "  fix: torch.save((tensor, ...), 'rows.pt'), or a dict by argument name; numpy.savez('rows.npz', name=...)"
        ) from error
