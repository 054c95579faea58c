"""The file that was imported, run by ONNX Runtime: what its rewriting is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, fx

from rankopt.agreement import Agreement, compare
from rankopt.errors import FormatError, VerificationError
from rankopt.float64 import run_float64
from rankopt.onnx_runtime import open_session, reason

ALLOWED_FACTOR = 16.0
"""How much further from the float64 truth than torch ONNX Runtime may be: both round, in kernels of their own."""


class Original:
    """An ONNX model, opened when it is first run."""

    def __init__(self, model: Path | onnx.ModelProto, source: str, outputs: Sequence[str]) -> None:
        self._model = model
        self._source = source
        self._outputs = list(outputs)
        self._session: Any = None

    def run(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs for rows. Raises FormatError where ONNX Runtime cannot load or run the model."""
        if self._session is None:
            self._session = self._open()
        taken = {item.name for item in self._session.get_inputs()}
        feed = {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items() if name in taken}
        try:
            return [torch.from_numpy(array) for array in self._session.run(self._outputs, feed)]
        except Exception as error:  # onnxruntime has no base of its own errors
            raise FormatError(
                f"ONNX Runtime cannot run {self._source}: {reason(error)}\n"
                "  fix: check it on these rows, or give rows in its ranges (--example)"
            ) from error

    def _open(self) -> Any:
        try:
            given = self._model if isinstance(self._model, Path) else self._model.SerializeToString()
            return open_session(given)
        except Exception as error:  # onnxruntime has no base of its own errors
            raise FormatError(
                f"ONNX Runtime cannot load {self._source}: {reason(error)}\n  fix: export the model again"
            ) from error


def check_import(
    source: str, graph_module: fx.GraphModule, arguments: Mapping[str, Tensor], served: Sequence[Tensor]
) -> None:
    """Raises VerificationError where what was read of a file is not what ONNX Runtime makes of it.

    Args:
        source: what to call the file.
        graph_module: the graph that was captured of it.
        arguments: the graph's arguments by placeholder.
        served: what ONNX Runtime gives for them.
    """
    truth = run_float64(graph_module, arguments)
    placeholders = graph_module.graph.find_nodes(op="placeholder")
    with torch.no_grad():
        read = [tensor.detach() for tensor in graph_module(*(arguments[node.name] for node in placeholders))]
    for ours, theirs in zip(read, served, strict=True):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise _not_the_same(
                source, f"{list(theirs.shape)} {theirs.dtype} by ONNX Runtime, {list(ours.shape)} {ours.dtype} as read"
            )
    agreement: Agreement = compare(truth, read, list(served))
    if not agreement.identical(factor=ALLOWED_FACTOR):
        raise _not_the_same(source, "; ".join(agreement.reasons(factor=ALLOWED_FACTOR)))


def _not_the_same(source: str, found: str) -> VerificationError:
    return VerificationError(
        f"{source} was not read as ONNX Runtime runs it, so it cannot be rewritten.\n"
        f"  found: {found}\n"
        "  fix: rewrite the original model, and report this: it is a bug of rankopt, or of a kernel of ONNX Runtime"
    )
