"""How a model is called: its arguments, nested as they may be, as one flat dict of named tensors and back.

    model(features={"user_id": u, "item_id": i}, temperature=0.5)
    {"features.user_id": u, "features.item_id": i}              # a float is part of the program, no input

Whether an argument is passed by position or by keyword does not change its name.
"""

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from rankopt.errors import CaptureError, InputError

_PLAIN = (NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.device, Enum)


@dataclass(frozen=True, slots=True)
class CallSignature:
    """The shape of a call: parameters of `forward`, nesting of the arguments, which leaves are tensors."""

    signature: inspect.Signature
    spec: pytree.TreeSpec  # of the dict {parameter: argument}
    leaves: tuple[str | Any, ...]  # in the order of `spec`: the name of an input, or a `Constant`

    @classmethod
    def of(cls, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> "CallSignature":
        """Reads the signature off an example call. Raises InputError where the call does not fit."""
        bound = _bind(signature, args, kwargs)
        paths, spec = pytree.tree_flatten_with_path(bound)
        for path, leaf in paths:
            if not isinstance(leaf, (Tensor, *_PLAIN)):
                raise _cannot_be_named(_name(path, signature), leaf)
        leaves = tuple(
            _name(path, signature) if isinstance(leaf, Tensor) else Constant(_name(path, signature), leaf)
            for path, leaf in paths
        )
        names = [leaf for leaf in leaves if isinstance(leaf, str)]
        if not names:
            raise InputError(
                "the example call has no tensor, so there is nothing to rank by.\n  fix: pass example rows"
            )
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"two inputs have the path '{twice}'.\n  fix: rename a key of the argument that holds them"
            )
        return cls(signature, spec, leaves)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs by path, in call order."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, str))

    @property
    def takes_any_keyword(self) -> bool:
        """Whether the model is written `forward(**inputs)`."""
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in self.signature.parameters.values())

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        """A call of the same shape as tensors by input name, in call order.

        Raises InputError where an input is missing or unknown, or where an argument that is no tensor differs
        from the one captured.
        """
        paths, _ = pytree.tree_flatten_with_path(_bind(self.signature, args, kwargs))
        given = {_name(path, self.signature): leaf for path, leaf in paths}
        for leaf in self.leaves:
            if isinstance(leaf, Constant):
                leaf.check(given.pop(leaf.name, leaf.value))
        missing = [name for name in self.names if not isinstance(given.get(name), Tensor)]
        unknown = [name for name in given if name not in self.names]
        if missing or unknown:
            raise InputError(
                f"the call does not have the inputs of the model: {_difference(missing, unknown)}.\n"
                f"  expected: {', '.join(self.names)}\n"
                "  fix: pass the arguments as in the call that was captured"
            )
        return {name: given[name] for name in self.names}

    def unflatten(self, inputs: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments `(args, kwargs)` with which the original model is called on these inputs."""
        leaves = [leaf.value if isinstance(leaf, Constant) else inputs[leaf] for leaf in self.leaves]
        arguments: dict[str, Any] = pytree.tree_unflatten(leaves, self.spec)
        bound = inspect.BoundArguments(self.signature, OrderedDict(arguments))
        return bound.args, bound.kwargs


@dataclass(frozen=True, slots=True)
class Constant:
    """An argument that is no tensor: part of the captured program."""

    name: str
    value: Any

    def check(self, given: Any) -> None:
        """Raises InputError where a later call passes another value."""
        if given is not self.value and (isinstance(given, Tensor) or given != self.value):
            raise InputError(
                f"argument '{self.name}' is {given!r}, but the model was captured with {self.value!r}.\n"
                "  fix: capture the model again with this value, or make it a tensor"
            )


def example_call(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs (tuple, dict of keywords, tensor, None) as arguments `(args, kwargs)` of a call."""
    if example_inputs is None:
        return (), {}
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return tuple(example_inputs), {}


def signature_of_program(program: ExportedProgram) -> inspect.Signature:
    """The parameters of the module that was exported: their names are kept beside its graph."""
    recorded = program.module_call_graph[0].signature
    in_spec = program.call_spec.in_spec
    if recorded is None or recorded.forward_arg_names is None or in_spec is None:
        raise CaptureError(
            "the ExportedProgram does not say how it is called.\n  fix: export it again with torch.export.export"
        )
    positional, keyword = in_spec.children()
    names = recorded.forward_arg_names[: positional.num_children]
    return inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        + [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in keyword.context]
    )


def check_row_counts(inputs: Mapping[str, Tensor]) -> int:
    """The number of rows that all inputs share. Raises InputError where they differ or there is none.

    An input without dims is shared by all rows and not counted.
    """
    counts = {name: tensor.shape[0] for name, tensor in inputs.items() if tensor.dim() > 0}
    if not counts:
        raise InputError("no input has a row dimension.\n  fix: pass tensors whose dim 0 counts rows")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' has {count}" for name, count in counts.items())
        raise InputError(
            f"the inputs of one call must have the same number of rows, but {listed}.\n"
            "  fix: tile the context to the number of candidates, or pass the inputs of one batch"
        )
    rows = next(iter(counts.values()))
    if rows == 0:
        raise InputError("the example has no rows.\n  fix: pass at least one example row")
    return rows


def with_rows(inputs: Mapping[str, Tensor], rows: int, shift: int = 0) -> dict[str, Tensor]:
    """The example with another number of rows, repeated or cut, from row `shift` on (modulo its length)."""
    return {
        name: tensor[(torch.arange(rows, device=tensor.device) + shift) % tensor.shape[0]] if tensor.dim() else tensor
        for name, tensor in inputs.items()
    }


def _row_range(tensor: Tensor, rows: int, shift: int) -> Tensor:
    if tensor.dim() == 0:
        return tensor.clone()
    return tensor[(torch.arange(rows, device=tensor.device) + shift) % tensor.shape[0]]


def row_counts_unlike(shapes: Sequence[Sequence[int]], count: int) -> tuple[int, ...]:
    """The first primes from 7 up that are no size of `shapes`: row counts that cannot be mistaken."""
    sizes = {size for shape in shapes for size in shape}
    found: list[int] = []
    candidate = 7
    while len(found) < count:
        if candidate not in sizes and all(candidate % divisor for divisor in range(2, int(candidate**0.5) + 1)):
            found.append(candidate)
        candidate += 2
    return tuple(found)


def _bind(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise InputError(
            f"the call does not fit the model: {error}.\n  expected: forward{signature}\n  fix: pass these arguments"
        ) from None


def _name(path: Sequence[Any], signature: inspect.Signature) -> str:
    """`features.user_id` for the leaf at `arguments["features"]["user_id"]`."""
    parameter, *inside = path
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in (parameter, *inside)]
    if signature.parameters[parts[0]].kind is inspect.Parameter.VAR_KEYWORD:
        parts = parts[1:]  # forward(**features): the keywords are the names
    return ".".join(parts)


def _cannot_be_named(name: str, leaf: Any) -> InputError:
    return InputError(
        f"argument '{name}' is a {type(leaf).__name__}: the tensors in it, if any, cannot be told apart.\n"
        "  fix: pass tensors, or dicts, lists and tuples of them; for a dataclass of tensors,\n"
        "       call torch.export.register_dataclass"
    )


def _difference(missing: Sequence[str], unknown: Sequence[str]) -> str:
    parts = [f"'{name}' is missing or no tensor" for name in missing] + [f"'{name}' is unknown" for name in unknown]
    return ", ".join(parts)
