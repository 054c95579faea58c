"""Random rankers: modules made of the blocks that real models are made of, described by data that prints as code.

    Description(
        inputs=(Input("ids", "context", 8), Input("dense", "target", 3)),
        steps=(Step("embed", (0,), {"width": 4}), Step("tower", (1, 2), {})),
    )

Inputs and the results of steps are numbered in one list; a step names its operands by their numbers. Whatever nobody
reads goes into the head. Layers are made when the model first runs, which is when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.selectors import InputRole, Role

EXAMPLES = 12
"""Rows of the example with which a ranker is captured."""


@dataclass(frozen=True)
class Input:
    """One input: what is in it, whom it belongs to, how wide it is; `columns` are the context's in a packed one."""

    kind: str  # ids | bag | packed ids | float ids | dense | history | vectors | mask | lengths | scalar
    role: str = "target"
    size: int = 1
    columns: tuple[int, ...] = ()

    def rows(self, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Random rows of this input."""
        shape = {"ids": (), "lengths": (), "vectors": (self.size, 4)}.get(self.kind, (self.size,))
        if self.kind == "scalar":
            return torch.tensor(0.75, dtype=dtype)
        if self.kind in ("dense", "vectors"):
            return torch.randn((count, *shape), generator=generator).to(dtype)
        if self.kind == "mask":
            return torch.rand((count, *shape), generator=generator) < 0.6
        high = self.size + 1 if self.kind == "lengths" else IDS
        drawn = torch.randint(0, high, (count, *shape), generator=generator)
        return drawn.float() if self.kind == "float ids" else drawn


IDS = 9
"""Rows of every embedding table. Id 0 is padding."""


@dataclass(frozen=True)
class Step:
    """A block, the numbers of its operands, and its options."""

    block: str
    operands: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Step({self.block!r}, {self.operands}, {dict(self.options)})"


@dataclass(frozen=True)
class Description:
    """A ranker."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...] = ()
    dtype: torch.dtype = torch.float32
    output: str = "scores"  # scores | column | tuple | dict

    def __repr__(self) -> str:
        lines = [
            "Description(",
            f"    inputs=({' '.join(f'{item!r},' for item in self.inputs)}),",
            "    steps=(",
            *(f"        {step!r}," for step in self.steps),
            "    ),",
            f"    dtype={self.dtype},",
            f"    output={self.output!r},",
            ")",
        ]
        return "\n".join(lines)

    def roles(self) -> tuple[InputRole, ...]:
        """The role of each input, under the path that it has in the call."""
        return tuple(self._role(i, item) for i, item in enumerate(self.inputs))

    def _role(self, i: int, item: Input) -> InputRole:
        name = f"features.x{i}"
        if item.columns:
            rest = tuple(k for k in range(item.size) if k not in item.columns)
            return InputRole(name, Role.PACKED, item.columns, rest)
        return InputRole(name, Role.CONTEXT if item.role == "context" or item.kind == "scalar" else Role.TARGET)

    def rows(self, count: int, seed: int = 0) -> dict[str, Tensor]:
        """Random rows of all inputs, by path."""
        generator = torch.Generator().manual_seed(seed)
        named = enumerate(self.inputs)
        return {f"features.x{i}": item.rows(count, generator, self.dtype) for i, item in named}


class Layers:
    """The layers of one step: made at its first run, found again at every other."""

    def __init__(self, made: nn.ModuleList, dtype: torch.dtype, ids: Iterator[int], *, first: bool) -> None:
        self.made, self.dtype, self._ids, self._first = made, dtype, ids, first

    def layer(self, make: Callable[[], nn.Module]) -> Any:
        """The next layer of this step."""
        number = next(self._ids)
        if self._first:
            self.made.append(make().to(self.dtype).eval())
        return self.made[number]

    def linear(self, inner: int, outer: int, bias: bool = True) -> nn.Linear:
        return self.layer(lambda: nn.Linear(inner, outer, bias))

    def weight(self, *shape: int) -> Tensor:
        return self.layer(lambda: Weight(*shape)).value

    def constant(self, values: Any) -> Tensor:
        return self.layer(lambda: Constant(values)).value


class Weight(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(shape) * 0.5)


class Constant(nn.Module):
    def __init__(self, values: Any) -> None:
        super().__init__()
        self.register_buffer("value", torch.as_tensor(values))


class RandomRanker(nn.Module):
    """The module of a description. `values` are what its inputs and steps gave for the example rows."""

    def __init__(self, given: Description, blocks: Mapping[str, Callable[..., Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.given, self.blocks = given, blocks
        self.steps = nn.ModuleList(nn.ModuleList() for _ in range(len(given.steps) + 1))
        rows = {name.removeprefix("features."): value for name, value in given.rows(EXAMPLES).items()}
        with torch.no_grad():
            self.values = tuple(self._values(rows, first=True))
            self._head(list(self.values), first=True)
        self.eval()

    def forward(self, features: dict[str, Tensor]) -> Any:
        return self._head(self._values(features))

    def extended(self, step: Step) -> RandomRanker:
        """The ranker with one more step. Raises whatever torch raises where the step does not fit."""
        given = self.given
        steps = (*given.steps, step)
        return RandomRanker(Description(given.inputs, steps, given.dtype, given.output), self.blocks)

    def _values(self, features: dict[str, Tensor], *, first: bool = False) -> list[Tensor]:
        values = [features[f"x{i}"] for i in range(len(self.given.inputs))]
        for i, step in enumerate(self.given.steps):
            operands = [values[number] for number in step.operands]
            values.append(self.blocks[step.block](self._layers(i, first=first), *operands, **step.options))
        return values

    def _head(self, values: list[Tensor], *, first: bool = False) -> Any:
        """Everything that nobody has read, side by side, through one linear layer."""
        read = {number for step in self.given.steps for number in step.operands}
        loose = [v for i, v in enumerate(values) if i not in read and v.ndim]
        floats = [v for v in loose if v.is_floating_point()]
        columns = [(v.unsqueeze(1) if v.ndim == 1 else v.flatten(1)).to(self.given.dtype) for v in floats or loose]
        x = columns[0] if len(columns) == 1 else torch.cat(columns, 1)
        layers = self._layers(len(self.given.steps), first=first)
        scores = layers.linear(x.shape[1], 2)(x)
        if self.given.output == "scores":
            return scores[:, 0]
        if self.given.output == "column":
            return torch.sigmoid(scores[:, :1])
        if self.given.output == "tuple":
            return scores[:, 0], None, x
        return {"click": scores[:, 0].sigmoid(), "both": [scores.prod(1), "text"]}

    def _layers(self, i: int, *, first: bool) -> Layers:
        return Layers(self.steps[i], self.given.dtype, iter(range(1 << 20)), first=first)
