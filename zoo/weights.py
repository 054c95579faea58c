"""Trained weights, a file per run: what is measured of a model can be measured again without training it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rankopt.zoo.errors import ZooError
from rankopt.zoo.experiments import Experiment
from rankopt.zoo.fields import Schema
from rankopt.zoo.files import write_whole

Facts = dict[str, Any]
"""An entry of the results: the key of a run, its identity, and figures."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder of trained models, each with the facts about its training."""

    folder: Path

    def path(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.slug}.pt"

    def has(self, experiment: Experiment) -> bool:
        """Whether this very model has been trained.

        Raises:
            ZooError: there is a file, but it cannot be read.
        """
        return self.path(experiment).exists() and self._read(experiment)[0]["identity"] == experiment.identity

    def save(self, experiment: Experiment, facts: Facts, model: nn.Module) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"facts": json.dumps(facts), "weights": model.state_dict()}
        write_whole(self.path(experiment), lambda file: torch.save(content, file))

    def load(self, experiment: Experiment, schema: Schema) -> tuple[Facts, nn.Module]:
        """What `save` was given.

        Raises:
            ZooError: the file cannot be read, or its weights are of another model.
        """
        facts, state = self._read(experiment)
        with torch.random.fork_rng(devices=[]):
            model = experiment.entry.model(schema)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise self._damaged(experiment, error) from error
        return facts, model.eval()

    def _read(self, experiment: Experiment) -> tuple[Facts, dict[str, Any]]:
        path = self.path(experiment)
        try:
            content = torch.load(path, weights_only=True, mmap=True)
            return dict(json.loads(content["facts"])), dict(content["weights"])
        except Exception as error:  # torch.load has no error of its own for a file that is none of its
            raise self._damaged(experiment, error) from error

    def _damaged(self, experiment: Experiment, error: Exception) -> ZooError:
        reason = (str(error).splitlines() or [repr(error)])[0]
        return ZooError(
            f"expected the weights of {experiment} in {self.path(experiment)}, found a file that cannot be read:"
            f" {reason}\n  fix: delete it, and train the model again"
        )
