"""Random descriptions of rankers, and smaller ones that still fail."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from rankers.blocks import BLOCKS
from rankers.model import Description, Input, RandomRanker, Step
from torch import Tensor

T = TypeVar("T")

LARGEST = 160
"""Elements per row that a value may have."""

RUNS = {name: block.run for name, block in BLOCKS.items()}
NAMES = tuple(BLOCKS)

STARTS: tuple[tuple[str, int], ...] = (
    ("dense", 4), ("ids", 1), ("vectors", 3), ("packed ids", 4), ("float ids", 3), ("history", 3), ("mask", 3),
    ("lengths", 3), ("scalar", 1), ("dense", 6), ("ids", 1), ("vectors", 3), ("vectors", 2), ("dense", 1),
)  # fmt: skip
"""Kinds and sizes of inputs; what is listed twice is drawn twice as often."""

DTYPES = (torch.float32, torch.float64, torch.float32, torch.bfloat16, torch.float16)

REFUSED = (RuntimeError, ValueError, IndexError, AssertionError)
"""What torch raises where a step does not fit: such a step is left out."""


@dataclass(frozen=True)
class Rolled:
    """Choices made by a generator."""

    generator: random.Random

    def integer(self, low: int, high: int) -> int:
        return self.generator.randint(low, high)

    def pick(self, items: Sequence[T]) -> T:
        return self.generator.choice(items)

    def flag(self) -> bool:
        return self.generator.random() < 0.5


def draw(seed: int, longest: int = 8) -> Description:
    """The ranker of a seed: 2 to `longest` steps over some inputs, at least one of which is the candidates'."""
    c = Rolled(random.Random(seed))
    sides = ("context", "target") if c.flag() else ("target", "context")
    inputs = [Input("dense", side, 4) for side in sides] if c.flag() else []
    inputs += [an_input(c) for _ in range(c.integer(1, 4))]
    if all(item.role == "context" or item.kind == "scalar" for item in inputs):
        inputs.append(Input(c.pick(("ids", "dense")), "target"))
    output = c.pick(("scores", "column", "tuple", "dict"))
    model = RandomRanker(Description(tuple(inputs), dtype=c.pick(DTYPES), output=output), RUNS)
    length = c.integer(2, longest)
    for _ in range(20 * length):  # most of the steps that are drawn fit nothing
        step = a_step(c, model.values)
        longer = step and extended(model, step)
        if longer and longer.values[-1][0].numel() <= LARGEST:
            model = longer
        if len(model.given.steps) == length:
            break
    return model.given


def an_input(c: Rolled) -> Input:
    """An input of the context, of the candidates, or with columns of both."""
    kind, size = c.pick(STARTS)
    if kind not in ("scalar", "lengths") and size > 1 and c.integer(0, 3) == 3:
        columns = [i for i in range(size) if c.flag()][: size - 1] or [c.integer(0, size - 1)]
        return Input(kind, "packed", size, tuple(columns))
    return Input(kind, c.pick(("context", "target")), size)


def a_step(c: Rolled, values: Sequence[Tensor]) -> Step | None:
    """A block and operands that fit it, the latest values preferred; None where there are none."""
    name = c.pick(NAMES)
    block = BLOCKS[name]
    operands: list[int] = []
    for kind in block.kinds:
        fit = [i for i, value in enumerate(values) if kind(value)]
        if not fit:
            return None
        operands.append(fit[-1 - c.integer(0, min(len(fit) - 1, 5))])
    if not block.fits(*(values[i] for i in operands)):
        return None
    return Step(name, tuple(operands), {option: c.pick(choices) for option, choices in block.options.items()})


def extended(model: RandomRanker, step: Step) -> RandomRanker | None:
    """The ranker with one more step, None where torch refuses it."""
    try:
        return RandomRanker(replace(model.given, steps=(*model.given.steps, step)), RUNS)
    except REFUSED:
        return None


# ------------------------------------------------------------------------------------------------------ shrinking


def shrunk(given: Description, fails: Callable[[Description], bool], patience: int = 60) -> Description:
    """A smaller ranker that still fails: each simplification is kept that keeps the failure."""
    tries = 0
    improved = True
    while improved:
        improved = False
        for simpler in simplifications(given):
            if tries >= patience:
                return given
            try:
                RandomRanker(simpler, RUNS)
            except REFUSED:
                continue
            tries += 1
            if fails(simpler):
                given, improved = simpler, True
                break
    return given


def simplifications(given: Description) -> Iterator[Description]:
    """Without a step, without an input, with a smaller input, with plainer output, type or options."""
    for i in reversed(range(len(given.steps))):
        number = len(given.inputs) + i
        for instead in (None, *given.steps[i].operands):
            if (smaller := without(given, number, instead)) is not None:
                yield smaller
    for number in reversed(range(len(given.inputs))):
        if len(given.inputs) > 1 and (smaller := without(given, number, None)) is not None:
            yield smaller
    for i, item in enumerate(given.inputs):
        if item.size > 1 and not item.columns:
            smaller_input = replace(item, size=item.size // 2)
            yield replace(given, inputs=(*given.inputs[:i], smaller_input, *given.inputs[i + 1 :]))
    if given.output != "scores":
        yield replace(given, output="scores")
    for dtype in (torch.float64, torch.float32):
        if given.dtype not in (torch.float64, dtype):
            yield replace(given, dtype=dtype)
    for i, step in enumerate(given.steps):
        for name, value in step.options.items():
            if value != (simplest := BLOCKS[step.block].options[name][0]):
                simpler = replace(step, options={**step.options, name: simplest})
                yield replace(given, steps=(*given.steps[:i], simpler, *given.steps[i + 1 :]))


def without(given: Description, number: int, instead: int | None) -> Description | None:
    """The ranker without a value; its readers read another one instead. None where that has to be said and is not."""
    read = any(number in step.operands for step in given.steps)
    if read != (instead is not None):
        return None

    def renumbered(old: int) -> int:
        new = instead if old == number and instead is not None else old
        return new - (new > number)

    steps = [replace(step, operands=tuple(map(renumbered, step.operands))) for step in given.steps]
    inputs = list(given.inputs)
    if number < len(inputs):
        del inputs[number]
    else:
        del steps[number - len(inputs)]
    if all(item.role == "context" or item.kind == "scalar" for item in inputs):
        return None
    return replace(given, inputs=tuple(inputs), steps=tuple(steps))
