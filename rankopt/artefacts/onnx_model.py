"""ONNX models: written by torch's exporter, run by ONNX Runtime at its default optimisation level."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from rankopt.artefacts.many_parts import ManyPart
from rankopt.artefacts.onnx_branches import add_single
from rankopt.artefacts.parts import COUNTED, Part
from rankopt.artefacts.running import Run
from rankopt.errors import ExportError
from rankopt.exporting import tracing_conditions
from rankopt.onnx_runtime import open_session, reason

SINGLE_FILE = 1 << 30
"""Bytes of weights up to which a model is one file. A protobuf message ends at 2 GiB, and readers copy it."""

IN_GRAPH = 256
"""Bytes up to which a tensor stays in the graph beside external data: shapes and indices, which runtimes fold."""


def write(program: ExportedProgram, part: Part, path: Path, facts: Mapping[str, Any], single_file: int) -> None:
    """Writes `path`, and `path`.data beside it where the weights have more than `single_file` bytes.

    `facts` go into the file's metadata, as JSON each. Raises ExportError where an op has no counterpart in ONNX.
    """
    import onnx_ir as ir

    model = _model(program, part)
    if isinstance(part, ManyPart):
        add_single(model, _model(part.single.program(), part.single), part, part.single)
    model.producer_name = "rankopt"
    model.metadata_props.update({f"rankopt.{name}": json.dumps(fact) for name, fact in facts.items()})
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size <= single_file:
        ir.save(model, path)
    else:
        ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=IN_GRAPH)


def _model(program: ExportedProgram, part: Part) -> Any:
    """A program as an onnx_ir model."""
    import onnx_ir as ir

    model = _translated(program, part).model
    _fold(model)
    _name_sizes(model, part)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()  # the exporter's notes on where each node comes from, longer than the graph
    return model


def _fold(model: Any) -> None:
    """Computes what is constant, and drops what nobody reads.

    The exporter would do more, and make products of vectors of `reshape(mm(reshape(x), w))` again, which ONNX Runtime
    silently gets wrong next to a transpose: so its rewriting is switched off, and these passes are all that is run.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript import optimizer

    common.InlinePass()(model)
    optimizer.fold_constants(model)
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.CommonSubexpressionEliminationPass(),
        common.NameFixPass(),
    )(model)


def _name_sizes(model: Any, part: Part) -> None:
    """Calls a dim by what it counts, candidates or requests, wherever it stands."""
    import onnx_ir as ir

    leading = {port.name: port.leading for port in part.inputs}
    names = {
        str(value.shape[i]): COUNTED[count]
        for value in model.graph.inputs
        for i, count in enumerate(leading[value.name])
    }
    values = [output for node in ir.traversal.RecursiveGraphIterator(model.graph) for output in node.outputs]
    for value in (*model.graph.inputs, *values):
        for i, size in enumerate(value.shape or ()):
            if str(size) in names:
                value.shape[i] = ir.SymbolicDim(names[str(size)])


def _translated(program: ExportedProgram, part: Part) -> Any:
    names = [port.name for port in part.inputs]
    try:
        with tracing_conditions():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                optimize=False,
                input_names=names,
                output_names=list(part.outputs),
            )
    except Exception as error:  # the exporter raises whatever its layers raise
        raise ExportError(
            f"the ranker cannot be written as ONNX: {reason(error)}\n"
            "  expected: ops that torch.onnx can translate\n"
            "  fix: export a torch program (.pt2) or an AOTInductor package (.aoti.pt2) instead"
        ) from error
    assert translated is not None
    return translated


def load(part: Part, path: Path) -> Run:
    """The model in a file, as a function of tensors by name. Raises ExportError where ONNX Runtime refuses it."""
    import onnxruntime as ort

    try:
        session = open_session(path)
    except Exception as error:  # onnxruntime has no base of its own errors
        raise ExportError(
            f"ONNX Runtime {ort.__version__} cannot load the model: {reason(error)}\n"
            "  expected: ops and element types that it has on CPU; bfloat16 has few\n"
            "  fix: convert the model to float32 first, or export a torch program (.pt2)"
        ) from error
    taken = {item.name for item in session.get_inputs()}
    outputs = list(part.outputs)

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        feed = {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items() if name in taken}
        return [torch.from_numpy(array) for array in session.run(outputs, feed)]

    return run
