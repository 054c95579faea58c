"""Capture: a model of any kind as one functional ATen graph over rows.

    nn.Module | fx.GraphModule | ExportedProgram  ->  CapturedModel

Every input is named by its path in the call, every weight by its name in the model; the graph holds for any
number of rows. Layers (linear, matmul, einsum, softmax, layer_norm, batch_norm, scaled_dot_product_attention,
embedding) stay single operators: below that level the same layer has many spellings.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from rankopt import exporting
from rankopt.calls import CallSignature, check_row_counts, with_rows
from rankopt.constant_masks import fold_constant_masks
from rankopt.errors import CaptureError
from rankopt.exporting import RowFunction, export_rows, tracing_conditions
from rankopt.functional import functional_graph
from rankopt.importing.model import OnnxModel
from rankopt.importing.original import check_import
from rankopt.programs import (
    call_of_program,
    input_values,
    keep_tensor_outputs,
    output_constants,
    row_range,
    shared_rows,
    tensor_inputs,
    weight_tensors,
)
from rankopt.refusals import (
    refuse_chance,
    refuse_changes_of_state,
    refuse_training_mode,
    refuse_unknown_sizes,
)

Model = nn.Module | ExportedProgram
"""What can be captured; an fx.GraphModule is an nn.Module."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input tensor of the model."""

    name: str  # its path in the call: "user_id", "features.user_id", "x"
    placeholder: str  # its node in the graph
    shape: tuple[int, ...]  # of the example; dim 0 counts rows, () is a scalar shared by all rows
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter, a buffer, or a constant of the model: the model's own tensor, never a copy."""

    name: str  # its name in the model; constants that have none are given one
    placeholder: str  # its node in the graph
    tensor: Tensor
    is_parameter: bool
    in_checkpoints: bool = True  # False for what no state dict of the model holds


@dataclass(frozen=True, slots=True)
class CapturedModel:
    """A model as a functional graph over rows, whose placeholders are the weights and the inputs."""

    graph_module: fx.GraphModule
    inputs: tuple[ModelInput, ...]  # in call order
    weights: tuple[Weight, ...]
    rows: sympy.Symbol  # the symbol of the row count in the graph's shapes
    max_rows: int | None  # an ExportedProgram may hold for so many rows only
    examples: dict[str, Tensor]  # example rows by input name; two rows at least, scalars as they are
    call: CallSignature
    out_spec: pytree.TreeSpec  # how the output is nested
    output_constants: dict[int, Any]  # leaves of the output that are no tensors, by position
    numbers: frozenset[str] = frozenset()  # weights that were read as numbers: the graph holds for these alone
    served: Callable[[Mapping[str, Tensor]], list[Tensor]] | None = None  # what runs the original, if not torch

    @property
    def in_spec(self) -> pytree.TreeSpec:
        """How the arguments of a call are nested, as a dict by parameter of `forward`."""
        return self.call.spec

    def flatten_call(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The original call's arguments by input name. Raises InputError where they are not the model's."""
        return self.call.flatten(args, kwargs or {})

    def unflatten_call(self, inputs: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments `(args, kwargs)` with which the original model is called on these inputs."""
        return self.call.unflatten(inputs)

    def unflatten_output(self, tensors: Sequence[Tensor]) -> Any:
        """The original model's output, nested as it was, from its tensors in order."""
        remaining = iter(tensors)
        constants = self.output_constants
        leaves = [constants[i] if i in constants else next(remaining) for i in range(self.out_spec.num_leaves)]
        return pytree.tree_unflatten(leaves, self.out_spec)

    def run(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The output tensors of the original as it is served on any number of rows [R, ...], without gradients."""
        if self.served is not None:
            return self.served(inputs)
        values = self.arguments(inputs)
        placeholders = self.graph_module.graph.find_nodes(op="placeholder")
        with torch.no_grad():
            return list(self.graph_module(*(values[node.name] for node in placeholders)))

    def arguments(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The arguments of the graph by placeholder, for rows by input name."""
        values = {item.placeholder: inputs[item.name] for item in self.inputs}
        return values | {weight.placeholder: weight.tensor.detach() for weight in self.weights}


def name_inputs(model: Model, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The tensors of a call by their paths, in call order, without capturing the model.

    An ExportedProgram needs no call: its own inputs are named, whose number of rows is a symbol. Raises
    InputError where the call does not fit the model.
    """
    kwargs = kwargs or {}
    if isinstance(model, OnnxModel) and not args and not kwargs:
        kwargs = model.example_rows()
    if isinstance(model, ExportedProgram):
        call = call_of_program(model)
        if not args and not kwargs:
            return dict(zip(call.names, input_values(model).values(), strict=True))
    else:
        call = CallSignature.of(inspect.signature(_uncompiled(model).forward), args, kwargs)
    return call.flatten(args, kwargs)


def capture(model: Model, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> CapturedModel:
    """Captures a model, called on example rows, as a functional graph for any number of rows.

    Args:
        model: an nn.Module in eval mode, an fx.GraphModule, or an ExportedProgram whose dim 0 is dynamic.
        args, kwargs: the call: tensors [R, ...], nested in any way, scalar tensors, and plain Python values,
            which become part of the program. An ExportedProgram, or an ONNX model, may be captured without them.

    Raises InputError where the example rows do not fit the model or each other, and CaptureError, with the
    line of the model, the cause and the usual fix, where no such graph exists.
    """
    kwargs = kwargs or {}
    if isinstance(model, ExportedProgram):
        return _capture_program(model, args, kwargs)
    if isinstance(model, OnnxModel):
        return _capture_onnx(model, kwargs or model.example_rows())
    return _capture_module(model, args, kwargs)


def _capture_module(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> CapturedModel:
    model = _uncompiled(model)
    refuse_training_mode(model)
    call = CallSignature.of(inspect.signature(model.forward), args, kwargs)
    examples = _at_least_two_rows(call.flatten(args, kwargs))
    function = RowFunction(model, call)
    program = export_rows(function, examples)
    assert function.output.spec is not None  # the export has run the function
    names = {id(tensor): name for name, tensor in _named_tensors(model)}
    return _captured(program, call, examples, function.output.spec, function.output.constants, names)


def _capture_onnx(model: OnnxModel, rows: Mapping[str, Any]) -> CapturedModel:
    """The model in a file, after what was read of it has given the same scores as the file itself."""
    captured = _capture_module(model, (), rows)
    examples = captured.examples
    served = model.original.run(examples)
    check_import(model.graph.source, captured.graph_module, captured.arguments(examples), served)
    return replace(captured, numbers=captured.numbers | model.numbers, served=model.original.run)


def _capture_program(program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]) -> CapturedModel:
    call = call_of_program(program)
    if shared_rows(program) is None:
        shapes = [f"'{name}' {list(value.shape)}" for name, value in input_values(program).items()]
        raise CaptureError(
            "the inputs of the ExportedProgram do not share one dynamic leading dimension: "
            f"{', '.join(shapes)}.\n"
            '  fix: rows = torch.export.Dim("rows")\n'
            "       torch.export.export(model, args, dynamic_shapes=({0: rows}, ...), strict=False)"
        )
    if args or kwargs:
        rows = call.flatten(args, kwargs)
    elif program.example_inputs is not None:
        rows = call.flatten(*program.example_inputs)
    else:
        rows = _made_up_rows(program, call)
    assert program.call_spec.out_spec is not None  # recorded together with how it is called
    constants = output_constants(program)
    return _captured(program, call, _at_least_two_rows(rows), program.call_spec.out_spec, constants, names=None)


def _captured(
    program: ExportedProgram,
    call: CallSignature,
    examples: dict[str, Tensor],
    out_spec: pytree.TreeSpec,
    constant_outputs: dict[int, Any],
    names: Mapping[int, str] | None,
) -> CapturedModel:
    """The captured form of an exported model; `names` are its own for its tensors, if it was wrapped."""
    rows = shared_rows(program)
    assert rows is not None  # whoever exported it has seen to that
    _, most_rows = row_range(program)
    with tracing_conditions():
        graph, program = functional_graph(program)
        placeholders = _placeholders(program.graph, graph)
        refuse_chance(graph)
        refuse_changes_of_state(program, graph)
        keep_tensor_outputs(program, graph)
        weights = [
            Weight(
                _weight_name(spec.target or "", tensor, names),
                placeholders[spec.arg.name],
                tensor,
                spec.kind is InputKind.PARAMETER,
                in_checkpoints=spec.kind is InputKind.PARAMETER or bool(spec.persistent),
            )
            for spec, tensor in weight_tensors(program)
        ]
        indices, read = fold_constant_masks(graph, {weight.placeholder: weight.tensor for weight in weights})
    refuse_unknown_sizes(graph)
    numbers = frozenset(weight.name for weight in weights if weight.placeholder in read)
    weights += [
        Weight(name, name, tensor, is_parameter=False, in_checkpoints=False) for name, tensor in indices.items()
    ]
    inputs = [
        ModelInput(name, placeholders[placeholder], tuple(examples[name].shape), examples[name].dtype)
        for name, placeholder in zip(call.names, tensor_inputs(program), strict=True)
    ]
    _tidy(graph, {weight.placeholder for weight in weights} | {item.placeholder for item in inputs})
    return CapturedModel(
        graph_module=fx.GraphModule({}, graph),
        inputs=tuple(inputs),
        weights=tuple(weights),
        rows=rows,
        max_rows=most_rows,
        examples=examples,
        call=call,
        out_spec=out_spec,
        output_constants=constant_outputs,
        numbers=numbers,
    )


def _placeholders(graph: fx.Graph, copy: fx.Graph) -> dict[str, str]:
    """The placeholders of a copy of a graph, by their names there: a copied `input` is called `input_1`."""
    pairs = zip(graph.find_nodes(op="placeholder"), copy.find_nodes(op="placeholder"), strict=True)
    return {node.name: its_copy.name for node, its_copy in pairs}


def _uncompiled(model: nn.Module) -> nn.Module:
    """The module inside of `torch.compile(module)`, or the module itself."""
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            "a TorchScript module has lost the Python that capture follows.\n"
            "  fix: pass the nn.Module that was scripted"
        )
    inside = getattr(model, "_orig_mod", model)
    return inside if isinstance(inside, nn.Module) else model


def _at_least_two_rows(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The example itself, or its one row twice: at one row a broadcast and a row cannot be told apart."""
    return rows if check_row_counts(rows) > 1 else with_rows(rows, 2)


def _made_up_rows(program: ExportedProgram, call: CallSignature) -> dict[str, Tensor]:
    """Two rows that fit the program's inputs: zeros where they may be ids, else numbers in [0, 1)."""
    generator = torch.Generator().manual_seed(0)
    rows = {}
    for name, value in zip(call.names, input_values(program).values(), strict=True):
        shape = [2, *value.shape[1:]] if value.dim() else []
        if not all(isinstance(size, int) for size in shape):
            raise CaptureError(
                f"input '{name}' has more than one dynamic dimension: {list(value.shape)}.\n"
                "  fix: export it with dim 0 dynamic alone"
            )
        if value.dtype.is_floating_point:
            rows[name] = torch.rand(shape, generator=generator).to(value.device, value.dtype)
        else:
            rows[name] = torch.zeros(shape, dtype=value.dtype, device=value.device)
    return rows


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}" if path else name, value


def _weight_name(target: str, tensor: Tensor, names: Mapping[int, str] | None) -> str:
    """The model's name for a weight, free of the names of what wrapped the model for its export."""
    if names is None:
        return target
    if target.startswith("model."):
        return target.removeprefix("model.")
    return names.get(id(tensor), target.rpartition(".")[2])


_OWN_FRAME = re.compile(rf'^ *File "{re.escape(exporting.__file__)}", line \d+, in forward\n.*\n?', re.MULTILINE)


def _tidy(graph: fx.Graph, placeholders: set[str]) -> None:
    """Drops arguments that are no tensors, and this package's frames from the recorded lines of the model."""
    for node in graph.nodes:
        if node.op == "placeholder" and node.name not in placeholders:
            graph.erase_node(node)
        elif trace := node.meta.get("stack_trace"):
            node.meta["stack_trace"] = _OWN_FRAME.sub("", trace)
