"""The whole zoo: every model trained on real data, rewritten, verified and timed, one entry of a JSON file each.

An entry is written as soon as its model is done, and is not made again while its model, its configuration and its data
stay what they are: an interrupted run goes on where it stopped. Models run in processes of their own, one thread each.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

from rankopt.errors import RankoptError
from rankopt.zoo.data import coupon, sources
from rankopt.zoo.dataset import Dataset, Role
from rankopt.zoo.describe import dense_parameters
from rankopt.zoo.errors import ZooError
from rankopt.zoo.files import write_whole
from rankopt.zoo.measure import measure
from rankopt.zoo.registry import ENTRIES, Entry
from rankopt.zoo.train import train

Sees = Literal["all", "context", "target"]
Echo = Callable[[str], None]
Key = tuple[str, str, str, str, int]

BASELINE = "dnn"
"""Also trained on the context alone, on the target alone, and with histories."""

PAIRS = (("dcnv2", "rdcn"), ("dcnv2", "rdcn_target_stream"), ("autoint", "rank_aware_attention"))
"""A model, and one whose context never sees the candidate: compared over several seeds."""

COMPARED = {name for pair in PAIRS for name in pair}

SWEPT = "mlcc"
SWEEPS: dict[str, tuple[Any, ...]] = {"heads": (1, 2, 8, 16), "embedding_dim": (4, 8, 32), "channels": (1, 2, 3, 4)}
"""Scaling axes of MLCC, beside its default; `channels` are those of MC-MLCC."""


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

    def __str__(self) -> str:
        changes = "".join(f" {name}={value}" for name, value in self.change)
        return f"{self.data} {self.model}{changes}" + ("" if self.sees == "all" else f" ({self.sees} alone)")


def experiments(data: Sequence[str], models: Sequence[str], seeds: int) -> Iterator[Experiment]:
    """All that is asked for, the comparisons first: if time runs out, what is missing is the sweep."""
    for name in data:
        for model in models:
            entry = ENTRIES[model]
            if entry.needs_history and name != "movietweetings":
                continue
            source = f"{name}_history" if entry.needs_history else name
            for seed in range(seeds if model in COMPARED and name == "movietweetings" else 1):
                yield Experiment(source, model, seed=seed)
    for name in data:
        if BASELINE in models:
            yield Experiment(name, BASELINE, "context")
            yield Experiment(name, BASELINE, "target")
    if "movietweetings" in data:
        if BASELINE in models:
            yield Experiment("movietweetings_history", BASELINE)
        yield from sweep(models)


def sweep(models: Sequence[str]) -> Iterator[Experiment]:
    """MLCC along its scaling axes, one at a time."""
    for axis, values in SWEEPS.items():
        model = "mc_mlcc" if axis == "channels" else SWEPT
        for value in values:
            if model in models and getattr(ENTRIES[model].config, axis) != value:
                yield Experiment("movietweetings", model, change=((axis, value),))


@dataclass(frozen=True, slots=True)
class Settings:
    """What every run shares."""

    coupon_path: Path | None
    budget: float


def run(
    *,
    models: Sequence[str],
    data: Sequence[str],
    coupon_path: Path | None,
    seeds: int,
    budget: float,
    jobs: int,
    output: Path,
    echo: Echo,
) -> int:
    """Does what is not in the file yet; gives the number of runs that failed."""
    names = list(data) or ["movietweetings", "coupon"]
    settings = Settings(coupon_path, budget)
    if "coupon" in names and not has_coupon(coupon_path):
        echo("coupon: left out, for its file is not there (--coupon-path, or $RANKOPT_DATA)")
        names.remove("coupon")
    output.parent.mkdir(parents=True, exist_ok=True)
    results = Results(output)
    wanted = list(experiments(names, list(models) or list(ENTRIES), seeds))
    missing = [experiment for experiment in wanted if not results.has(experiment)]
    echo(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them in {output} already")
    failed = 0
    # spawned: a forked process would inherit the locks of torch's threads
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=8) as pool:
        pending = {pool.submit(perform, experiment, settings): experiment for experiment in missing}
        for done, future in enumerate(as_completed(pending), start=1):
            facts = future.result()
            results.add(facts)
            failed += "error" in facts
            echo(f"[{done}/{len(missing)}] {pending[future]}: {sentence(facts)}")
    return failed


def has_coupon(path: Path | None) -> bool:
    try:
        return (path or coupon.default_path()).is_file()
    except ZooError:
        return False


def perform(experiment: Experiment, settings: Settings) -> dict[str, Any]:
    """One entry. An error of rankopt is a fact about the model, not the end of the run."""
    torch.set_num_threads(1)
    dataset = read(experiment, settings)
    trained = train(experiment.entry, dataset, seed=experiment.seed, budget=settings.budget)
    facts: dict[str, Any] = experiment.key | {
        "identity": fingerprint(experiment),
        "auc": trained.test.auc,
        "log_loss": trained.test.log_loss,
        "epochs": trained.epochs,
        "train_seconds": round(trained.seconds, 1),
        "complete": trained.complete,
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "dense_parameters": dense_parameters(trained.model),
    }
    if experiment.sees != "all":
        return facts
    try:
        return facts | measure(trained.model, dataset)
    except RankoptError as error:
        return facts | {"error": f"{type(error).__name__}: {error}"}


def read(experiment: Experiment, settings: Settings) -> Dataset:
    path = settings.coupon_path if experiment.data == "coupon" else None
    dataset = sources.load(experiment.data, path)
    role: Role | None = None if experiment.sees == "all" else experiment.sees
    return dataset if role is None else dataset.only(role)


def sentence(facts: dict[str, Any]) -> str:
    """An entry in one line."""
    line = f"AUC {facts['auc']:.4f}, log loss {facts['log_loss']:.4f}, {facts['train_seconds']:.0f} s"
    if "error" in facts:
        return f"{line}; {facts['error'].splitlines()[0]}"
    if "speedup" not in facts:
        return line
    kflops = facts["flops_before"] / 1e3, facts["flops_after"] / 1e3
    return f"{line}; {kflops[0]:.1f} -> {kflops[1]:.1f} kFLOP per candidate, {facts['speedup']:.2f}x"


def fingerprint(experiment: Experiment) -> dict[str, Any]:
    """What makes a run another one beside its key."""
    return {"config": repr(experiment.entry.config), "recipe": repr(experiment.entry.recipe)}


class Results:
    """The JSON file: what was measured where, and one entry per run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []

    def has(self, experiment: Experiment) -> bool:
        """Whether there is an entry of this very model; one that failed does not count."""
        wanted = experiment.key | {"identity": fingerprint(experiment)}
        return any("error" not in run and {name: run.get(name) for name in wanted} == wanted for run in self.runs)

    def add(self, facts: dict[str, Any]) -> None:
        """Puts an entry in the place of an older one of the same key, and writes the file."""
        names = list(Experiment("", "").key)
        same = [run for run in self.runs if all(run[name] == facts[name] for name in names)]
        self.runs = sorted([run for run in self.runs if run not in same] + [facts], key=order)
        text = json.dumps({"machine": machine(), "candidates": 512, "runs": self.runs}, indent=1)
        write_whole(self.path, lambda file: file.write(text.encode() + b"\n"))


def order(run: dict[str, Any]) -> Key:
    return run["data"], run["model"], run["sees"], json.dumps(run["change"]), run["seed"]


def machine() -> dict[str, Any]:
    """What a reader needs to know about where the figures were measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads_per_model": 1,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "scikit-learn", "numpy")},
    }
