"""Which models are trained on what: the runs of `rankopt zoo bench`, and what makes two of them the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rankopt.zoo.data import coupon, movietweetings
from rankopt.zoo.describe import function
from rankopt.zoo.registry import ENTRIES, Entry

Sees = Literal["all", "context", "target"]

BASELINE = "dnn"
"""Also trained on the context alone, on the target alone, and with histories."""

PAIRS = (("dcnv2", "rdcn"), ("dcnv2", "rdcn_target_stream"), ("autoint", "rank_aware_attention"))
"""A model, and one whose context never sees the candidate: compared over several seeds."""

COMPARED = {name for pair in PAIRS for name in pair}

SWEPT = "mlcc"
SWEEPS: dict[str, tuple[Any, ...]] = {"heads": (1, 2, 8, 16), "embedding_dim": (4, 8, 32), "channels": (1, 2, 3, 4)}
"""Scaling axes of MLCC, beside its default; `channels` are those of MC-MLCC."""

SCHEDULES = {
    "movietweetings": movietweetings.SCHEDULE,
    "movietweetings_history": movietweetings.SCHEDULE,
    "coupon": coupon.SCHEDULE,
}


@dataclass(frozen=True, slots=True)
class Experiment:
    """A model on a data set; `change` are fields of its configuration that differ from the default."""

    data: str
    model: str
    sees: Sees = "all"
    change: tuple[tuple[str, Any], ...] = ()
    seed: int = 0

    @property
    def key(self) -> dict[str, Any]:
        return {"data": self.data, "model": self.model, "sees": self.sees, "change": dict(self.change)} | {
            "seed": self.seed
        }

    @property
    def entry(self) -> Entry:
        entry = ENTRIES[self.model]
        return replace(entry, config=replace(entry.config, **dict(self.change)))

    @property
    def identity(self) -> dict[str, Any]:
        """What makes a run another one beside its key: what the model computes, and how it is trained."""
        entry = self.entry
        return {
            "config": repr(entry.config),
            "recipe": repr(entry.recipe),
            "schedule": repr(SCHEDULES[self.data]),
            "function": function(entry),
        }

    @property
    def is_default(self) -> bool:
        """All fields, the default configuration and the first seed: the run that stands for its model."""
        return self.sees == "all" and not self.change and not self.seed

    @property
    def slug(self) -> str:
        """The run as the name of a file."""
        changes = [f"{name}_{value}" for name, value in self.change]
        sees = [] if self.sees == "all" else [f"{self.sees}_alone"]
        return "-".join([self.data, self.model, *changes, *sees, f"seed_{self.seed}"])

    def __str__(self) -> str:
        changes = "".join(f" {name}={value}" for name, value in self.change)
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.data} {self.model}{changes}{seed}" + ("" if self.sees == "all" else f" ({self.sees} alone)")


def experiments(data: Sequence[str], models: Sequence[str], seeds: int) -> Iterator[Experiment]:
    """All that is asked for, every model first: if time runs out, what is missing are the comparisons and the sweep."""
    for name in data:
        for model in models:
            history = ENTRIES[model].needs_history
            if not history or name == "movietweetings":
                yield Experiment(f"{name}_history" if history else name, model)
    for name in data:
        if BASELINE in models:
            yield Experiment(name, BASELINE, "context")
            yield Experiment(name, BASELINE, "target")
            if name == "movietweetings":
                yield Experiment("movietweetings_history", BASELINE)
    for name in data:
        for model in models:
            if model in COMPARED:
                yield from (Experiment(name, model, seed=seed) for seed in range(1, seeds))
    if "movietweetings" in data:
        yield from sweep(models, seeds)


def sweep(models: Sequence[str], seeds: int) -> Iterator[Experiment]:
    """MLCC along its scaling axes, one at a time, and from the second seed on where the axes meet."""
    for axis, values in SWEEPS.items():
        model = "mc_mlcc" if axis == "channels" else SWEPT
        if model in models:
            changed = [value for value in values if getattr(ENTRIES[model].config, axis) != value]
            for seed in range(seeds):
                yield from (
                    Experiment("movietweetings", model, change=((axis, value),), seed=seed) for value in changed
                )
    for model in (SWEPT, "mc_mlcc"):
        if model in models:
            yield from (Experiment("movietweetings", model, seed=seed) for seed in range(1, seeds))
