"""The interface of a ranker: which inputs a call passes, which of them are context, and how its output is nested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rankopt.calls import CallSignature
from rankopt.selectors import InputRole, Role


@dataclass(frozen=True, slots=True)
class InputInfo:
    """What a call has to pass for one input: its path, the sizes behind the row dim, the element type.

    `shape` is None for a scalar, which all rows share.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers of candidates from `first` to `last`, and the policy of the plan that serves them."""

    first: int
    last: int
    policy: str = ""
    """How far the rewriting went: the name of one of `rankopt.plan.POLICIES`."""

    def __str__(self) -> str:
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,}-{self.last:,}"


@dataclass(frozen=True, slots=True)
class Interface:
    """How the original model is called, which of its inputs are context, and which plan serves how many candidates."""

    inputs: tuple[InputInfo, ...]
    roles: tuple[InputRole, ...]
    call: CallSignature
    out_spec: pytree.TreeSpec
    output_constants: dict[int, Any]
    ranges: tuple[Range, ...]
    """In ascending order and without gaps. Numbers beyond them are valid, and served by the nearest plan."""

    @property
    def candidates(self) -> int:
        """The largest number of candidates that a plan was made for."""
        return self.ranges[-1].last

    @property
    def policy(self) -> str:
        """The policy of the plan for the largest numbers."""
        return self.ranges[-1].policy

    def place(self, candidates: int) -> int:
        """Which of the plans serves a number of candidates."""
        return next((i for i, span in enumerate(self.ranges) if candidates <= span.last), len(self.ranges) - 1)

    def expected(self, role: Role) -> list[InputInfo]:
        """The inputs of the context or of the target, in call order; a packed input has its columns in each."""
        found: list[InputInfo] = []
        for info, given in zip(self.inputs, self.roles, strict=True):
            if given.role is Role.PACKED:
                assert info.shape is not None
                columns = given.context_columns if role is Role.CONTEXT else given.target_columns
                found.append(InputInfo(info.name, (len(columns), *info.shape[1:]), info.dtype))
            elif given.role is role:
                found.append(info)
        return found

    def unflatten_output(self, tensors: Sequence[Tensor]) -> Any:
        """The original model's output, nested as it was."""
        rest = iter(tensors)
        constants = self.output_constants
        leaves = [constants[i] if i in constants else next(rest) for i in range(self.out_spec.num_leaves)]
        return pytree.tree_unflatten(leaves, self.out_spec)
