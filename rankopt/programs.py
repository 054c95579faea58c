"""What an ExportedProgram says of itself: its inputs, its outputs, its tensors, how it is called."""

from collections.abc import Iterator
from traceback import FrameSummary
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from rankopt.calls import CallSignature, signature_of_program
from rankopt.diagnosis import is_users
from rankopt.errors import CaptureError

_MORE_THAN_ANY_BATCH = 2**31  # torch bounds what it multiplies, so that sizes fit 64 bits


def tensor_inputs(program: ExportedProgram) -> list[str]:
    """The placeholders of the user's tensors, in call order."""
    return [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]


def input_values(program: ExportedProgram) -> dict[str, Tensor]:
    """The fake tensors, with symbolic sizes, that the user's tensors are in the graph, by placeholder."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    return {name: nodes[name].meta["val"] for name in tensor_inputs(program)}


def shared_rows(program: ExportedProgram) -> sympy.Symbol | None:
    """The symbol that is dim 0 of every input with dims; None where one is fixed or they disagree."""
    sizes: list[Any] = [value.shape[0] for value in input_values(program).values() if value.dim() > 0]
    found = {size.node.expr if isinstance(size, torch.SymInt) else size for size in sizes}
    symbol = found.pop() if len(found) == 1 else None
    return symbol if isinstance(symbol, sympy.Symbol) else None


def row_range(program: ExportedProgram) -> tuple[int, int | None]:
    """The fewest and the most rows for which the program holds; None if there is no limit."""
    rows = shared_rows(program)
    if rows not in program.range_constraints:
        return 0, None
    bounds = program.range_constraints[rows]
    return int(bounds.lower), int(bounds.upper) if bounds.upper < _MORE_THAN_ANY_BATCH else None


def line_of_row_guard(program: ExportedProgram) -> str | None:
    """The line of the model that first compared the number of rows with something, if that was recorded."""
    rows = shared_rows(program)
    values: list[Any] = list(input_values(program).values())  # fake tensors, all of one mode
    for guard in values[0].fake_mode.shape_env.guards:
        place = guard.sloc.framework_loc  # the caller's frame; torch's own where no user code compared
        if rows in guard.expr.free_symbols and isinstance(place, FrameSummary) and is_users(place.filename):
            return f"{place.filename}:{place.lineno}"
    return None


def call_of_program(program: ExportedProgram) -> CallSignature:
    """How the program is called, read off its placeholders: no example is needed.

    Raises CaptureError where it was saved without that, or takes sizes that vary.
    """
    signature = signature_of_program(program)
    values: dict[str, Any] = dict(input_values(program))
    leaves = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if not isinstance(spec.arg, (TensorArgument, ConstantArgument)):
            raise CaptureError(
                f"argument '{spec.arg.name}' is a number that varies.\n"
                "  fix: export with a fixed value, or make it a tensor"
            )
        leaves.append(values[spec.arg.name] if isinstance(spec.arg, TensorArgument) else spec.arg.value)
    assert program.call_spec.in_spec is not None  # else there were no signature
    args, kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    return CallSignature.of(signature, args, kwargs)


def output_constants(program: ExportedProgram) -> dict[int, Any]:
    """The leaves of the output that are no tensors, by position. Raises CaptureError for sizes among them."""
    constants: dict[int, Any] = {}
    outputs = [spec.arg for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    for position, argument in enumerate(outputs):
        if isinstance(argument, ConstantArgument):
            constants[position] = argument.value
        elif not isinstance(argument, TensorArgument):
            raise CaptureError(f"output {position} is a size, no tensor.\n  fix: return tensors only")
    return constants


def keep_tensor_outputs(program: ExportedProgram, graph: fx.Graph) -> None:
    """Cuts the graph's outputs to the tensors that the user gets: what a call changes is an output too."""
    output = next(iter(graph.find_nodes(op="output")))
    kept = [
        node
        for node, spec in zip(output.args[0], program.graph_signature.output_specs, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    ]
    output.args = (tuple(kept),)


def weight_tensors(program: ExportedProgram) -> Iterator[tuple[InputSpec, Tensor]]:
    """Parameters, buffers and constants: the specification of each and the very tensor that the model holds.

    Raises CaptureError for what is no tensor.
    """
    tensors = {**program.state_dict, **program.constants}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        tensor = tensors.get(spec.target or "")
        if not isinstance(tensor, Tensor):
            raise CaptureError(
                f"the model reads '{spec.target}', which is no tensor.\n"
                "  fix: keep the tensors that it holds as buffers of the model"
            )
        yield spec, tensor
