"""The whole zoo: every model trained on real data, rewritten, verified and timed, one entry of a JSON file each.

Two stages. Training takes all the cores it is given, a model in a process of its own on one thread, and keeps the
weights (`rankopt.zoo.weights`). Measuring takes one model at a time, so that nothing disturbs the clock but what else
the machine does, and can be done again whenever it does nothing.

What has been done is not done again while its model, its recipe and its data stay what they are: an interrupted run
goes on where it stopped.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch

from rankopt.errors import RankoptError
from rankopt.zoo.data import coupon, sources
from rankopt.zoo.dataset import Dataset, Role
from rankopt.zoo.describe import dense_parameters
from rankopt.zoo.errors import ZooError
from rankopt.zoo.experiments import Experiment, experiments
from rankopt.zoo.measure import measure
from rankopt.zoo.registry import ENTRIES
from rankopt.zoo.results import Results
from rankopt.zoo.train import train
from rankopt.zoo.weights import Facts, Weights

Echo = Callable[[str], None]
Stage = Literal["train", "measure"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What every run shares."""

    weights: Weights
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
    only: Stage | None,
    weights: Path,
    output: Path,
    echo: Echo,
) -> int:
    """Does what is not done yet; gives the number of models that rankopt failed at.

    Args:
        only: train, and leave the rest for later; or measure all that is trained, also what has an entry.
    """
    names = list(data) or ["movietweetings", "coupon"]
    if "coupon" in names and not has_coupon(coupon_path):
        echo("coupon: left out, for its file is not there (--coupon-path, or $RANKOPT_DATA)")
        names.remove("coupon")
    settings = Settings(Weights(weights), coupon_path, budget)
    wanted = list(experiments(names, list(models) or list(ENTRIES), seeds))
    results = Results(output)
    missing = wanted if only == "measure" else [experiment for experiment in wanted if not results.has(experiment)]
    untrained = [experiment for experiment in missing if not settings.weights.has(experiment)]
    if only == "measure":
        echo(f"{len(wanted)} runs, {len(wanted) - len(untrained)} of them trained")
        missing = [experiment for experiment in wanted if experiment not in untrained]
    else:
        echo(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them in {output}, {len(untrained)} to train")
        for place, (experiment, facts) in enumerate(work(train_one, untrained, settings, jobs), start=1):
            echo(f"trained [{place}/{len(untrained)}] {experiment}: {learnt(facts)}")
    if only == "train":
        return 0
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    for place, (experiment, facts) in enumerate(work(measure_one, missing, settings, jobs=1), start=1):
        results.add(facts)
        failed += "error" in facts
        echo(f"measured [{place}/{len(missing)}] {experiment}: {saved(facts)}")
    return failed


def has_coupon(path: Path | None) -> bool:
    try:
        return (path or coupon.default_path()).is_file()
    except ZooError:
        return False


def work(
    what: Callable[[Experiment, Settings], Facts], runs: Sequence[Experiment], settings: Settings, jobs: int
) -> Iterator[tuple[Experiment, Facts]]:
    """Results as they come, from so many processes; whoever stops listening stops them."""
    # spawned: a forked process would inherit the locks of torch's threads
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        pending = {pool.submit(what, experiment, settings): experiment for experiment in runs}
        for done in as_completed(pending):
            yield pending[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def train_one(experiment: Experiment, settings: Settings) -> Facts:
    """Trains a model and keeps its weights."""
    torch.set_num_threads(1)
    dataset = read(experiment, settings)
    begin = time.process_time()
    trained = train(experiment.entry, dataset, seed=experiment.seed, budget=settings.budget)
    facts: Facts = experiment.key | {
        "identity": experiment.identity,
        "auc": trained.test.auc,
        "log_loss": trained.test.log_loss,
        "epochs": trained.epochs,
        "cpu_seconds": round(time.process_time() - begin, 1),
        "complete": trained.complete,
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "dense_parameters": dense_parameters(trained.model),
    }
    settings.weights.save(experiment, facts, trained.model)
    return facts


def measure_one(experiment: Experiment, settings: Settings) -> Facts:
    """The entry of a trained model. An error of rankopt is a fact about the model, not the end of the run."""
    torch.set_num_threads(1)
    dataset = read(experiment, settings)
    facts, model = settings.weights.load(experiment, dataset.schema)
    if experiment.sees != "all":
        return facts
    try:
        return facts | measure(model, dataset, timed=experiment.is_default)
    except RankoptError as error:
        return facts | {"error": f"{type(error).__name__}: {error}"}


def read(experiment: Experiment, settings: Settings) -> Dataset:
    path = settings.coupon_path if experiment.data == "coupon" else None
    dataset = sources.load(experiment.data, path)
    role: Role | None = None if experiment.sees == "all" else experiment.sees
    return dataset if role is None else dataset.only(role)


def learnt(facts: Facts) -> str:
    """The training of a model in one line."""
    stopped = "" if facts["complete"] else ", stopped by its budget"
    figures = f"AUC {facts['auc']:.4f}, log loss {facts['log_loss']:.4f}"
    return f"{figures}, {facts['epochs']} epochs, {facts['cpu_seconds']:.0f} CPU seconds{stopped}"


def saved(facts: Facts) -> str:
    """What was measured of a model in one line."""
    if "error" in facts:
        return str(facts["error"].splitlines()[0])
    if "flops_before" not in facts:
        return f"AUC {facts['auc']:.4f}"
    kflops = facts["flops_before"] / 1e3, facts["flops_after"] / 1e3
    same = "identical" if facts["identical"] else "NOT identical"
    speed = f", {facts['speedup']:.2f}x" if "speedup" in facts else ""
    return f"{same}, {kflops[0]:.1f} -> {kflops[1]:.1f} kFLOP per candidate{speed}"
