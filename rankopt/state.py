"""The state of a request as a value: named tensors, and the version of the model that made them.

    state = ranker.context_stage(context)
    state.save("user_17.safetensors")                     # or state.to_bytes(), for a cache
    state = rankopt.State.load("user_17.safetensors")
    scores = ranker.candidate_stage(state, target)        # refused by another program, and by other weights

A version is two hashes: of the program that computes the state, and of all weights of the model. A state belongs to one
version of a model, so the weights of the candidate stage count as well, and the second hash is the one that every file
of a ranker carries. To hash 1 GB of weights takes about a second. So it is done when a version is first asked for (a
state is saved, or comes from elsewhere) and kept until the weights change; a ranker that was loaded has it from its
file. Within a process the identity of a `Maker` says who made a state, and no call waits for a hash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakMethod

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils import _pytree as pytree

from rankopt.atomic import write_whole
from rankopt.errors import FormatError, StageError
from rankopt.version import __version__


@dataclass(frozen=True, slots=True)
class Version:
    """What makes a state: the hash of the program that computes it, and that of the model's weights."""

    program: str
    weights: str


class Maker:
    """One plan of a ranker with the weights that it has now. Its version is computed when it is asked for.

    `read` is a method of whoever knows the version, who is not kept alive for it.
    """

    def __init__(self, read: Callable[[], Version] | None = None) -> None:
        self._read = None if read is None else WeakMethod(read)
        self._version: Version | None = None

    def __reduce__(self) -> tuple[type[Maker], tuple[()]]:
        return Maker, ()  # a copy of a ranker is another ranker: it makes itself known anew

    @property
    def is_over(self) -> bool:
        """Whether the weights have changed since."""
        return self._read is None

    def end(self) -> None:
        """To be called when the weights have changed: a version that is not known by then never will be."""
        self._read = None

    def version(self) -> Version | None:
        """The version; None where nobody can tell any more."""
        read = None if self._read is None else self._read()
        if self._version is None and read is not None:
            self._version = read()
        return self._version


class State(dict[str, Tensor]):
    """What crosses from the context stage to the candidate stage, by name. Made by `Ranker.context_stage`.

    A dict in all respects; a plain dict of the same tensors is taken by `candidate_stage` as well, on trust.
    """

    def __init__(self, tensors: Mapping[str, Tensor], made_by: Maker | Version) -> None:
        super().__init__(tensors)
        self.made_by = made_by

    @property
    def version(self) -> Version:
        """The program and the weights that made it. Hashes the weights if nobody has yet.

        Raises StageError where the ranker has changed, or is gone, and its version was not asked for before.
        """
        found = self.made_by if isinstance(self.made_by, Version) else self.made_by.version()
        if found is None:
            raise StageError(
                "the weights that made this state have changed since, or are gone, so that its version is unknown.\n"
                "  expected: a state of the weights that the ranker has now\n"
                "  fix: run context_stage again; save a state, or read state.version, before the weights change"
            )
        return found

    @property
    def nbytes(self) -> int:
        """Size of the tensors, in bytes."""
        return sum(tensor.nbytes for tensor in self.values())

    def to(self, device: torch.device | str) -> State:
        """The state on another device."""
        return State({name: tensor.to(device) for name, tensor in self.items()}, self.made_by)

    # ---------------------------------------------------------------------------------------------- stored

    def to_bytes(self) -> bytes:
        """The state in the safetensors format, with its version. Raises StageError like `version`."""
        version = self.version
        # Cloned, because the format has no tensors that share memory.
        apart = {n: x.detach().cpu().clone(memory_format=torch.contiguous_format) for n, x in self.items()}
        return save(apart, {"rankopt": __version__, "program": version.program, "weights": version.weights})

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device | str = "cpu") -> State:
        """The state that `to_bytes` was called on. Raises FormatError where the bytes are none."""
        return cls._read(data, device, "these bytes")

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes the state to a .safetensors file, whole or not at all.

        Raises OutputError where the file exists and `overwrite` is not set, or cannot be written.
        """
        data = self.to_bytes()
        write_whole(Path(path), lambda file: file.write(data), overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> State:
        """The state in a file that `save` wrote. Nothing is unpickled. Raises FormatError for any other file."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise FormatError(f"{path} cannot be read: {error.strerror}.\n  fix: check the path") from error
        return cls._read(data, device, str(path))

    @classmethod
    def _read(cls, data: bytes, device: torch.device | str, where: str) -> State:
        try:
            tensors = load(data)
            header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        except (SafetensorError, ValueError, KeyError) as error:
            raise FormatError(
                f"{where} cannot be read as a state: {error}.\n"
                "  expected: a safetensors file, as state.save writes it\n  fix: run context_stage again"
            ) from error
        facts = header.get("__metadata__", {})
        if "program" not in facts or "weights" not in facts:
            raise FormatError(
                f"{where} holds tensors, but does not say which model made them.\n"
                "  expected: a file that state.save wrote\n"
                "  fix: if they are a state, pass them as a dict: safetensors.torch.load_file(path)"
            )
        version = Version(facts["program"], facts["weights"])
        return cls({name: tensor.to(device) for name, tensor in tensors.items()}, version)

    def __reduce__(self) -> tuple[type[State], tuple[dict[str, Tensor], Version]]:
        return State, (dict(self), self.version)  # what is pickled leaves the process


pytree.register_pytree_node(
    State,
    lambda state: (list(state.values()), (tuple(state), state.made_by)),
    lambda tensors, context: State(dict(zip(context[0], tensors, strict=True)), context[1]),
    serialized_type_name="rankopt.State",
)


def refuse_other_version(found: Version, expected: Sequence[Version]) -> None:
    """Raises StageError where a state is of another version than all that are expected, of which there is one."""
    if found in expected:
        return
    weights = expected[0].weights
    if found.weights != weights:
        what, wanted, given = "other weights", weights, found.weights
    else:
        what, wanted, given = "another program", expected[0].program, found.program
    raise StageError(
        f"the state was made by {what} than this ranker's.\n"
        f"  expected: {wanted}\n  found: {given}\n"
        "  fix: run context_stage of this very ranker again"
    )
