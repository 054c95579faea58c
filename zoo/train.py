"""Training: Adam, early stopping, a limit of time, and a checkpoint that a later run goes on from.

Two phases. The *search* trains on all but the last tenth of the training rows and finds, on that tenth, the number of
epochs with the best AUC. The *final* phase starts anew and trains for that many epochs on all of the training rows:
where data is split by time, the last tenth is the most like what comes next. A data set with validation rows of its own
has no final phase: the weights after the best epoch of the search are the result.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from rankopt.zoo.checkpoint import Checkpoint, Metrics, Phase
from rankopt.zoo.dataset import Dataset, Recipe, RowSource, Schedule
from rankopt.zoo.learner import Hardware, Learner
from rankopt.zoo.registry import Entry

EVALUATION_BATCH = 4096
CHECKPOINT_SECONDS = 300.0
"""An epoch that takes longer is saved within, about as often."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where training stands after one batch."""

    phase: Phase
    epoch: int
    batch: int
    batches: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A model and how it got there; `validation` has the metrics after every epoch of the search.

    `complete` is false where the budget ran out: the model is as far as it came, and has `epochs` whole ones behind it.
    """

    model: nn.Module
    epochs: int
    validation: tuple[Metrics, ...]
    test: Metrics
    seconds: float
    complete: bool = True


class OutOfTime(Exception):
    """The budget is spent; what was reached is in the checkpoint."""


def train(
    entry: Entry,
    dataset: Dataset,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    budget: float | None = None,
    hardware: Hardware | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Trained:
    """Trains a model of the zoo and judges it on the test rows.

    With a checkpoint file, a run that was interrupted or ran out of time goes on where it was last saved, and ends with
    the numbers of a run that was not.

    Args:
        budget: seconds after which training stops as it stands; the evaluation on the test rows comes after it.
        hardware: a CPU in float32 by default.

    Raises:
        ZooError: the checkpoint belongs to another model, data set, recipe or seed.
    """
    hardware = hardware or Hardware()
    saved = Checkpoint(checkpoint, identity(entry, dataset, seed, hardware))
    run = Run(entry, dataset, seed, hardware, saved, budget, on_step)
    try:
        learner, complete = run.search_and_finish(), True
    except OutOfTime:
        learner, complete = run.learner, False
    model = learner.model.eval()
    validation = tuple(run.progress.validation)
    test = evaluate(model, dataset.test, learner.device)
    return Trained(model.cpu(), learner.epochs, validation, test, run.progress.seconds, complete)


class Run:
    """One call of `train`: the learner at work, the progress that it makes, and the clock."""

    def __init__(
        self,
        entry: Entry,
        dataset: Dataset,
        seed: int,
        hardware: Hardware,
        saved: Checkpoint,
        budget: float | None,
        on_step: Callable[[Step], None],
    ) -> None:
        self.entry, self.dataset, self.seed, self.hardware = entry, dataset, seed, hardware
        self.saved, self.budget, self.on_step = saved, budget, on_step
        self.progress = saved.load()
        self.started = self.last_saved = time.perf_counter()
        self.seconds_before = self.progress.seconds
        self.learner = self.fresh_learner()
        if self.progress.learner is not None:
            self.learner.load_state_dict(self.progress.learner)

    def search_and_finish(self) -> Learner:
        """The learner after both phases. Raises OutOfTime."""
        if self.progress.phase is Phase.SEARCH:
            self.search()
        if self.dataset.validation is not None:
            self.learner.model.load_state_dict(self.progress.best or self.learner.model.state_dict())
            self.learner.epochs = best_epoch(self.progress.validation)
            return self.learner
        while self.learner.epochs < best_epoch(self.progress.validation):
            self.run_epoch(self.dataset.train)
            self.save()
        return self.learner

    def search(self) -> None:
        """Epochs until none is worth a try; then the next phase begins."""
        schedule, progress = self.dataset.schedule, self.progress
        fitting, validation = self.dataset.train, self.dataset.validation
        if validation is None:
            rows = fitting.first(len(fitting))
            fitting, validation = rows.split(round(len(rows) * (1 - schedule.validation_fraction)))
        while not is_searched(progress.validation, schedule):
            self.run_epoch(fitting)
            progress.validation.append(evaluate(self.learner.model, validation, self.learner.device))
            if self.dataset.validation is not None and best_epoch(progress.validation) == self.learner.epochs:
                progress.best = {name: tensor.clone() for name, tensor in self.learner.model.state_dict().items()}
            self.save()
        progress.phase = Phase.FINAL
        if self.dataset.validation is None:
            self.learner, progress.learner = self.fresh_learner(), None

    def run_epoch(self, rows: RowSource) -> None:
        """The rest of the epoch that the learner is in. Raises OutOfTime."""
        learner, size = self.learner, self.dataset.schedule.batch_size
        total = -(-len(rows) // size)
        for batch in rows.batches(size, seed=learner.order_seed, start=learner.batches):
            learner.run_batch(batch)
            self.on_step(Step(self.progress.phase, learner.epochs + 1, learner.batches, total))
            now = time.perf_counter()
            if self.budget is not None and now - self.started >= self.budget:
                self.save()
                raise OutOfTime
            if now - self.last_saved >= CHECKPOINT_SECONDS:
                self.save()
        learner.end_epoch()

    def save(self) -> None:
        self.last_saved = time.perf_counter()
        self.progress.seconds = self.seconds_before + self.last_saved - self.started
        self.progress.learner = self.learner.state_dict()
        self.saved.save(self.progress)

    def fresh_learner(self) -> Learner:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.entry.model(self.dataset.schema)
        return Learner(model, recipe_of(self.entry, self.dataset), self.hardware, self.seed)


def recipe_of(entry: Entry, dataset: Dataset) -> Recipe:
    """The recipe of the data's benchmark where it has one, else that of the model."""
    return dataset.recipe or entry.recipe


def best_epoch(validation: Sequence[Metrics]) -> int:
    """Number of epochs (from 1) after which the validation AUC was highest."""
    return 1 + max(range(len(validation)), key=lambda index: validation[index].auc)


def is_searched(validation: Sequence[Metrics], schedule: Schedule) -> bool:
    """Whether one more epoch is not worth a try."""
    if not validation:
        return False
    waited = len(validation) - best_epoch(validation)
    return waited >= schedule.patience or len(validation) >= schedule.epochs


def evaluate(model: nn.Module, rows: RowSource, device: torch.device | None = None) -> Metrics:
    """AUC and log loss of a model, in evaluation mode and float32."""
    model.eval()
    device = device or torch.device("cpu")
    logits, labels = [], []
    with torch.no_grad():
        for batch in rows.batches(EVALUATION_BATCH):
            logits.append(model(batch.to(device).features).cpu())
            labels.append(batch.labels)
    truth, scores = torch.cat(labels).numpy(), torch.cat(logits).double().sigmoid().numpy()
    return Metrics(float(roc_auc_score(truth, scores)), float(log_loss(truth, scores)))


def identity(entry: Entry, dataset: Dataset, seed: int, hardware: Hardware) -> dict[str, Any]:
    """What two runs must share for one to go on from the other's checkpoint."""
    return {
        "model": entry.name,
        "config": repr(entry.config),
        "recipe": repr(recipe_of(entry, dataset)),
        "data": dataset.name,
        "rows": [len(dataset.train), len(dataset.test)],
        "schema": repr(dataset.schema),
        "schedule": repr(dataset.schedule),
        "seed": seed,
        "hardware": [hardware.device, hardware.precision.value],
    }
