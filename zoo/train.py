"""Training: Adam, early stopping, and a checkpoint that a later run goes on from.

Two phases. The *search* trains on all but the last tenth of the training rows and finds, on that tenth, the
number of epochs with the best AUC. The *final* phase starts anew and trains for that many epochs on all of
the training rows: where data is split by time, the last tenth is the most like what comes next.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rankopt.zoo.checkpoint import Checkpoint, Metrics, Phase
from rankopt.zoo.dataset import Dataset, Rows, Schedule
from rankopt.zoo.fields import Schema
from rankopt.zoo.registry import Entry, Recipe

EVALUATION_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Step:
    """Where training stands after one batch."""

    phase: Phase
    epoch: int
    batch: int
    batches: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A model and how it got there; `validation` has the metrics after every epoch of the search."""

    model: nn.Module
    epochs: int
    validation: tuple[Metrics, ...]
    test: Metrics
    seconds: float


def train(
    entry: Entry,
    dataset: Dataset,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Trained:
    """Trains a model of the zoo and judges it on the test rows.

    With a checkpoint file, a run that was interrupted goes on after its last whole epoch and ends with the
    numbers of a run that was not.

    Raises:
        ZooError: the checkpoint belongs to another model, data set, recipe or seed.
    """
    started = time.perf_counter()
    schedule = dataset.schedule
    saved = Checkpoint(checkpoint, identity(entry, dataset, seed))
    progress = saved.load()
    fitting, validation = dataset.train.split(round(len(dataset.train) * (1 - schedule.validation_fraction)))

    def learner(phase: Phase) -> Learner:
        fresh = Learner(entry, dataset.schema, schedule.batch_size, seed)
        if progress.phase is phase and progress.learner is not None:
            fresh.load_state_dict(progress.learner)
        return fresh

    if progress.phase is Phase.SEARCH:
        searching = learner(Phase.SEARCH)
        while not is_searched(progress.validation, schedule):
            searching.run_epoch(fitting, Phase.SEARCH, on_step)
            progress.validation.append(evaluate(searching.model, validation))
            progress.learner = searching.state_dict()
            saved.save(progress)
        progress.phase, progress.learner = Phase.FINAL, None

    final, epochs = learner(Phase.FINAL), best_epoch(progress.validation)
    while final.epoch < epochs:
        final.run_epoch(dataset.train, Phase.FINAL, on_step)
        progress.learner = final.state_dict()
        saved.save(progress)
    model = final.model.eval()
    seconds = time.perf_counter() - started
    return Trained(model, epochs, tuple(progress.validation), evaluate(model, dataset.test), seconds)


def best_epoch(validation: Sequence[Metrics]) -> int:
    """Number of epochs (from 1) after which the validation AUC was highest."""
    return 1 + max(range(len(validation)), key=lambda index: validation[index].auc)


def is_searched(validation: Sequence[Metrics], schedule: Schedule) -> bool:
    """Whether one more epoch is not worth a try."""
    if not validation:
        return False
    waited = len(validation) - best_epoch(validation)
    return waited >= schedule.patience or len(validation) >= schedule.epochs


def evaluate(model: nn.Module, rows: Rows) -> Metrics:
    """AUC and log loss of a model, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        batches = torch.arange(len(rows)).split(EVALUATION_BATCH)
        logits = torch.cat([model(rows.take(batch).features) for batch in batches])
    labels, scores = rows.labels.numpy(), logits.double().sigmoid().numpy()
    return Metrics(float(roc_auc_score(labels, scores)), float(log_loss(labels, scores)))


class Learner:
    """A model under training: its weights, its optimiser and the number of epochs behind it.

    Every epoch draws its order and its dropout from a seed of its own: no generator has to be saved.
    """

    def __init__(self, entry: Entry, schema: Schema, batch_size: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = entry.model(schema)
        self.recipe: Recipe = entry.recipe
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.recipe.learning_rate)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def run_epoch(self, rows: Rows, phase: Phase, on_step: Callable[[Step], None]) -> None:
        self.model.train()
        self.epoch += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1_000_003 * self.epoch)
            batches = torch.randperm(len(rows)).split(self.batch_size)
            for number, batch in enumerate(batches, start=1):
                self.run_batch(rows.take(batch))
                on_step(Step(phase, self.epoch, number, len(batches)))

    def run_batch(self, rows: Rows) -> None:
        loss = binary_cross_entropy_with_logits(self.model(rows.features), rows.labels)
        looked_up = self.model.get_submodule("embedding")(rows.features)  # [R, F, D]
        penalty = self.recipe.embedding_l2 * looked_up.square().sum() / len(rows)
        self.optimizer.zero_grad()
        (loss + penalty).backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def identity(entry: Entry, dataset: Dataset, seed: int) -> dict[str, Any]:
    """What two runs must share for one to go on from the other's checkpoint."""
    return {
        "model": entry.name,
        "config": repr(entry.config),
        "recipe": repr(entry.recipe),
        "data": dataset.name,
        "schema": repr(dataset.schema),
        "schedule": repr(dataset.schedule),
        "seed": seed,
    }
