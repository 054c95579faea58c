"""What a saved ranker says of itself, beside its graph: a versioned description in JSON.

The graph holds the numbers, the description everything that the graph cannot: which inputs are context, how
the original model was called and what it returned, for how many candidates the program was optimised, its
report.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rankopt.calls import CallSignature, Constant
from rankopt.errors import FormatError
from rankopt.interface import InputInfo, Interface, Range
from rankopt.selectors import InputRole, Role

FORMAT = 2
"""The version that is written."""
READABLE = (1, 2)
"""The versions that can be read."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The description of a saved ranker."""

    interface: Interface
    context: tuple[str, ...]
    """The context inputs of the graph, in its order; `target` likewise."""
    target: tuple[str, ...]
    constants: tuple[str, ...]
    """The buffers of the graph that are not the model's."""
    plans: tuple[tuple[str, ...], ...]
    """The tensors that each plan takes, in the order of its arguments: of all but the last, which the graph is."""
    weights: str
    """`fingerprint` of the model's weights."""
    report: Json | None
    versions: Json = field(default_factory=dict[str, Any])
    """The versions of rankopt and torch that wrote it."""
    ranges: Json = field(default_factory=dict[str, Any])
    """`rankopt.ranges` of the inputs; none in files that were written before there were any."""
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Weights that the graph may have been specialised for, by name, with the `fingerprint` of each."""
    state_dtype: torch.dtype | None = None
    """What the state is rounded to, if it is."""
    not_in_checkpoints: frozenset[str] = frozenset()
    """Tensors that no state dict of the model holds."""

    def to_json(self) -> Json:
        """The description as plain data. Raises FormatError for what JSON cannot hold."""
        return {
            "format": FORMAT,
            "versions": self.versions,
            "interface": _interface_to_json(self.interface),
            "context": list(self.context),
            "target": list(self.target),
            "constants": list(self.constants),
            "plans": [list(tensors) for tensors in self.plans],
            "weights": self.weights,
            "ranges": self.ranges,
            "fixed": dict(self.fixed),
            "not_in_checkpoints": sorted(self.not_in_checkpoints),
            "state_dtype": None if self.state_dtype is None else str(self.state_dtype).removeprefix("torch."),
            "report": self.report,
        }

    @classmethod
    def from_json(cls, data: Json) -> Metadata:
        """The description back.

        Raises FormatError for a version that cannot be read, KeyError, TypeError or ValueError for a damaged
        one.
        """
        if data.get("format") not in READABLE:
            readable = ", ".join(map(str, READABLE))
            raise FormatError(
                f"it has format version {data.get('format')}, written by rankopt "
                f"{data.get('versions', {}).get('rankopt', 'of an unknown version')}; readable: {readable}.\n"
                "  fix: read it with the version of rankopt that wrote it, or optimize the model again"
            )
        return cls(
            interface=_interface_from_json(data["interface"]),
            context=tuple(data["context"]),
            target=tuple(data["target"]),
            constants=tuple(data["constants"]),
            plans=tuple(tuple(tensors) for tensors in data.get("plans", ())),
            weights=data["weights"],
            report=data["report"],
            versions=data["versions"],
            ranges=data.get("ranges", {}),
            fixed=data.get("fixed", {}),
            not_in_checkpoints=frozenset(data.get("not_in_checkpoints", ())),
            state_dtype=getattr(torch, data["state_dtype"]) if data.get("state_dtype") else None,
        )


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of the weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        whole = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {whole.dtype} {list(whole.shape)}\n".encode())
        digest.update(whole.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


# -------------------------------------------------------------------------------------------------- interface


def _interface_to_json(interface: Interface) -> Json:
    call = interface.call
    return {
        "inputs": [
            {
                "name": info.name,
                "shape": None if info.shape is None else list(info.shape),
                "dtype": str(info.dtype).removeprefix("torch."),
                "role": role.role.value,
                "context_columns": list(role.context_columns),
                "target_columns": list(role.target_columns),
            }
            for info, role in zip(interface.inputs, interface.roles, strict=True)
        ],
        "call": {
            "parameters": [
                {"name": p.name, "kind": p.kind.name, "optional": p.default is not inspect.Parameter.empty}
                for p in call.signature.parameters.values()
            ],
            "spec": _spec_to_json(call.spec),
            "leaves": [
                leaf if isinstance(leaf, str) else {"name": leaf.name, **_value_to_json(leaf.value, leaf.name)}
                for leaf in call.leaves
            ],
        },
        "output": {
            "spec": _spec_to_json(interface.out_spec),
            "constants": {
                str(i): _value_to_json(value, f"output {i}") for i, value in interface.output_constants.items()
            },
        },
        "ranges": [{"first": span.first, "last": span.last, "policy": span.policy} for span in interface.ranges],
    }


def _interface_from_json(data: Json) -> Interface:
    call, output = data["call"], data["output"]
    inputs = tuple(
        InputInfo(i["name"], None if i["shape"] is None else tuple(i["shape"]), getattr(torch, i["dtype"]))
        for i in data["inputs"]
    )
    roles = tuple(
        InputRole(i["name"], Role(i["role"]), tuple(i["context_columns"]), tuple(i["target_columns"]))
        for i in data["inputs"]
    )
    signature = inspect.Signature([_parameter(item) for item in call["parameters"]])
    leaves = tuple(
        leaf if isinstance(leaf, str) else Constant(leaf["name"], _value_from_json(leaf)) for leaf in call["leaves"]
    )
    return Interface(
        inputs,
        roles,
        CallSignature(signature, pytree.treespec_loads(call["spec"]), leaves),
        pytree.treespec_loads(output["spec"]),
        {int(i): _value_from_json(value) for i, value in output["constants"].items()},
        _ranges(data),
    )


def _ranges(data: Json) -> tuple[Range, ...]:
    if "ranges" not in data:  # format 1: one plan
        return (Range(data["candidates"], data["candidates"], data["policy"]),)
    return tuple(Range(span["first"], span["last"], span["policy"]) for span in data["ranges"])


def _parameter(data: Json) -> inspect.Parameter:
    """A parameter of `forward`; what its default is does not matter, for it is part of the graph."""
    kind = getattr(inspect.Parameter, data["kind"])
    return inspect.Parameter(data["name"], kind, default=None if data["optional"] else inspect.Parameter.empty)


def _spec_to_json(spec: pytree.TreeSpec) -> str:
    try:
        return pytree.treespec_dumps(spec)
    except NotImplementedError as error:
        raise FormatError(
            f"the call nests a type that torch cannot save: {error}\n"
            "  fix: use dicts, lists and tuples, or register it with torch.export.register_dataclass"
        ) from error


# ----------------------------------------------------------------------------------------------- plain values

_KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "dtype": (torch.dtype, lambda v: str(v).removeprefix("torch."), lambda v: getattr(torch, v)),
    "device": (torch.device, str, torch.device),
    "complex": (complex, lambda v: [v.real, v.imag], lambda v: complex(*v)),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
}
"""Values that JSON has no word for: their type, to JSON, from JSON."""


def _value_to_json(value: Any, where: str) -> Json:
    if value is None or type(value) in (bool, int, float, str):
        return {"value": value}
    for kind, (of, encode, _) in _KINDS.items():
        if isinstance(value, of):
            return {"kind": kind, "value": encode(value)}
    raise FormatError(
        f"{where} is a {type(value).__name__}, which a file cannot hold: {value!r}.\n"
        "  fix: pass a number, a string or None"
    )


def _value_from_json(data: Json) -> Any:
    return _KINDS[data["kind"]][2](data["value"]) if "kind" in data else data["value"]
