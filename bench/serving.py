"""The two ways of serving that are compared with the original: plain torch calls and ONNX Runtime.

ONNX files are exported with the torch.onnx exporter for any number of candidates and run at ONNX Runtime's default
optimisation level.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from rankopt.calls import CallSignature
from rankopt.ranker import Ranker
from rankopt.requests import Request


class PreparedRanker(nn.Module):
    """A ranker as one function of flat tensors, its prepared weights being constants."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker
        stages = ranker.stages
        with torch.no_grad():
            prepared = [tensor.detach() for tensor in ranker.prepared()]
        for i, tensor in enumerate(prepared):
            self.register_buffer(f"weight_{i}", tensor)
        self.context = stages.context_stage
        self.candidate = stages.candidate_stage

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        stages = self.ranker.stages
        weights = [self.get_buffer(f"weight_{i}") for i in range(len(stages.prepared))]
        split = len(stages.context_inputs)
        state = self.context(*(weights[i] for i in stages.context_weights), *inputs[:split])
        return self.candidate(*(weights[i] for i in stages.candidate_weights), *state, *inputs[split:])


class RowsModel(nn.Module):
    """The original as a function of flat rows, in the order of `call.names`."""

    def __init__(self, model: nn.Module, call: CallSignature) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, *rows: Tensor) -> Any:
        args, kwargs = self.call.unflatten(dict(zip(self.call.names, rows, strict=True)))
        return self.model(*args, **kwargs)


class OnnxCall:
    """A session, called with inputs by the names that they have in torch."""

    def __init__(self, session: ort.InferenceSession, inputs: Iterable[str]) -> None:
        self.session = session
        known = {name.replace(".", "_"): name for name in inputs}
        self.names = {item.name: known[item.name] for item in session.get_inputs()}

    def __call__(self, values: Mapping[str, Tensor]) -> list[np.ndarray[Any, Any]]:
        return list(self.session.run(None, {name: values[own].numpy() for name, own in self.names.items()}))


def onnx_session(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic: set[str],
    threads: int,
    configure: Callable[[ort.SessionOptions], None] | None = None,
) -> OnnxCall:
    """A function that runs `module` under ONNX Runtime, on inputs by name; those in `dynamic` count rows."""
    rows = torch.export.Dim("rows", min=1, max=1 << 20)
    shapes = (tuple({0: rows} if name in dynamic else None for name in inputs),)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(
            module.eval(), tuple(inputs.values()), path, dynamo=True, dynamic_shapes=shapes, verbose=False,
            input_names=[name.replace(".", "_") for name in inputs], external_data=False,
        )  # fmt: skip
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the other alone
        options.log_severity_level = 3
        if configure is not None:
            configure(options)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return OnnxCall(session, inputs)


def flat_inputs(ranker: Ranker, request: Request) -> dict[str, Tensor]:
    """A request by the names of a session. The two parts of a packed input have one name, so each says whose it is."""
    context = {f"context.{name}": request.context[name] for name in ranker.stages.context_inputs}
    return {**context, **{f"target.{name}": request.target[name] for name in ranker.stages.target_inputs}}


def ranker_session(ranker: Ranker, request: Request, threads: int) -> OnnxCall:
    """A function that runs a ranker under ONNX Runtime on what `flat_inputs` returns, for any number of candidates."""
    flat = flat_inputs(ranker, request)
    target = {name: value for name, value in flat.items() if name.startswith("target.")}
    ten = {name: _ten(value) for name, value in target.items()}
    return onnx_session(PreparedRanker(ranker), {**flat, **ten}, with_rows(target), threads)


def with_rows(inputs: Mapping[str, Tensor]) -> set[str]:
    """The names of inputs that have a row per candidate."""
    return {name for name, value in inputs.items() if value.dim()}


def _ten(value: Tensor) -> Tensor:
    """Ten rows to export with: a graph exported at one row would hold for one row."""
    return value[:1].repeat(10, *[1] * (value.dim() - 1)) if value.dim() else value
