"""Programs by number: the program of a seed is drawn, checked and, if it fails, shrunk.

The numbers are all there is to a search: the same seed is the same program under the same check, on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from properties.choices import Choices
from properties.drawing import draw
from properties.recorder import Recorded, Recorder

Check = Callable[[Recorded], None]
PATIENCE = 600
"""Programs that are tried to shrink one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A program that fails: its choices, its code as far as it came, and the error."""

    choices: tuple[int, ...]
    code: str
    error: Exception

    @property
    def size(self) -> tuple[int, int, tuple[int, ...]]:
        """What shrinking makes smaller: the lines of code, then the choices, then the numbers that are chosen."""
        return self.code.count("\n"), len(self.choices), self.choices

    def __str__(self) -> str:
        reason = str(self.error).removesuffix(self.code).rstrip()
        return f"{type(self.error).__name__}: {reason}\n{self.code}"


class Failed(AssertionError):
    """The program of a seed fails. Says the seed and, as code, what is left of the program."""


def require(seeds: Iterable[int], check: Callable[[Recorded, int], None]) -> None:
    """Raises Failed at the first seed whose program fails the check, which is also given the seed."""
    for seed in seeds:
        if failure := failure_of(seed, lambda program: check(program, seed)):  # noqa: B023  called at once
            raise Failed(f"seed {seed}: {failure}") from failure.error


def failure_of(seed: int, check: Check) -> Failure | None:
    """How the program of a seed fails, shrunk; None if it does not."""
    failure = attempt(Choices(seed), check)
    return failure and shrunk(failure, check)


def attempt(choices: Choices, check: Check) -> Failure | None:
    """How the program of these choices fails; None if it does not. Whatever is raised is a failure."""
    recorder = Recorder()
    try:
        check(draw(recorder, choices))
    except Exception as error:
        return Failure(tuple(choices.made), "\n".join(recorder.lines), error)
    return None


def shrunk(failure: Failure, check: Check, patience: int = PATIENCE) -> Failure:
    """A smaller program that fails with the same type of error: each simplification is kept that keeps the failure."""
    tried = {failure.choices}
    improved = True
    while improved:
        improved = False
        for simpler in simplifications(failure.choices):
            if simpler in tried:
                continue
            if len(tried) > patience:
                return failure
            tried.add(simpler)
            found = attempt(Choices(again=simpler), check)
            if found and type(found.error) is type(failure.error) and found.size < failure.size:
                failure, improved = found, True
                break
    return failure


def simplifications(choices: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Without some that follow each other, long runs first and the last first; then each at its lowest, and lower."""
    length = len(choices)
    while length:
        for start in range(len(choices) - length, -1, -max(length // 2, 1)):
            yield (*choices[:start], *choices[start + length :])
        length //= 2
    for i in reversed(range(len(choices))):
        for lower in sorted({0, choices[i] // 2, choices[i] - 1}):
            if 0 <= lower < choices[i]:
                yield (*choices[:i], lower, *choices[i + 1 :])
