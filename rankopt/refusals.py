"""What a model must not do, because scores would then depend on more than its rows and its weights."""

from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from rankopt.diagnosis import (
    DATA_DEPENDENT_SIZE,
    RANDOM,
    STATE_CHANGED,
    TRAINING,
    VALUE_READ,
    line_of_node,
    refusal,
)

aten = torch.ops.aten

_DIFFERENT_IN_TRAINING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.RReLU)


def refuse_training_mode(model: nn.Module) -> None:
    """Raises CaptureError if the model, or a layer that works differently there, is in training mode."""
    for name, module in model.named_modules():
        # A GraphModule's own flag says nothing: its layers, and the flags in its operators, do.
        custom_root = module is model and not isinstance(model, fx.GraphModule)
        if module.training and (custom_root or isinstance(module, _DIFFERENT_IN_TRAINING)):
            raise refusal(TRAINING, f"{type(module).__name__} '{name}'" if name else type(model).__name__)


def refuse_chance(graph: fx.Graph) -> None:
    """Raises CaptureError where the graph draws random numbers, in training layers or otherwise."""
    for node in graph.nodes:
        arguments = _arguments(node)
        if arguments.get("train") is True or (arguments.get("training") is True and arguments.get("running_mean")):
            raise refusal(TRAINING, line_of_node(node), node.name)
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        if not (arguments.get("dropout_p") == 0 or False in (arguments.get("train"), arguments.get("training"))):
            raise refusal(RANDOM, line_of_node(node), node.name)


def refuse_changes_of_state(program: ExportedProgram, graph: fx.Graph) -> None:
    """Raises CaptureError where a call changes a buffer or a parameter of the model."""
    output = next(iter(graph.find_nodes(op="output")))
    for node, spec in zip(output.args[0], program.graph_signature.output_specs, strict=True):
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            raise refusal(STATE_CHANGED, line_of_node(node), spec.target or node.name)


def refuse_unknown_sizes(graph: fx.Graph) -> None:
    """Raises CaptureError where a size, or a number, is known only once the data are."""
    for node in graph.nodes:
        if node.meta.get("unbacked_bindings"):
            number = isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool))
            cause = VALUE_READ if number else DATA_DEPENDENT_SIZE
            raise refusal(cause, line_of_node(node), node.name)


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an ATen call by the names of its schema, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {}
    names = [argument.name for argument in node.target._schema.arguments]
    defaults = {a.name: a.default_value for a in node.target._schema.arguments if a.has_default_value()}
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
