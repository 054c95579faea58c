"""A model under training: its weights, its optimisers, and how far it has come."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from rankopt.zoo.dataset import Recipe, Rows

SPARSE_ROWS = 50_000
"""An embedding table with as many rows or more is updated row by row.

Adam moves every row of a table at every step. Row by row (`torch.optim.SparseAdam`) only those move that a batch has
looked up, at a cost that does not grow with the table. The two differ for rows that a batch leaves out: their momentum
stands still.
"""


class Precision(Enum):
    """What a forward pass in training computes in; weights and their updates are float32 in any case."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where a model is trained, and in which precision."""

    device: str = "cpu"
    precision: Precision = Precision.FLOAT32

    @classmethod
    def best(cls, device: str) -> "Hardware":
        """Mixed precision on an accelerator. A CPU without instructions for it is far slower (docs/zoo.md)."""
        is_cpu = torch.device(device).type == "cpu"
        return cls(device, Precision.FLOAT32 if is_cpu else Precision.BFLOAT16)


class Learner:
    """Every batch draws its dropout from a seed of its own, every epoch its order: no generator has to be saved."""

    def __init__(self, model: nn.Module, recipe: Recipe, hardware: Hardware, seed: int) -> None:
        self.device = torch.device(hardware.device)
        self.is_mixed = hardware.precision is Precision.BFLOAT16
        self.model = model.to(self.device)
        self.recipe = recipe
        self.seed = seed
        self.epochs = 0
        """Whole epochs behind it."""
        self.batches = 0
        """Batches of the epoch that it is in."""
        self.optimizers = make_optimizers(self.model, recipe.learning_rate)
        self._looked_up: list[Tensor] = []
        if recipe.embedding_l2:
            for table in tables(self.model):
                table.register_forward_hook(self._note)

    @property
    def order_seed(self) -> int:
        """Of the order of the rows in the epoch that it is in."""
        return self.seed + 1_000_003 * (self.epochs + 1)

    def run_batch(self, rows: Rows) -> None:
        """One step of the optimisers."""
        self.model.train()
        rows = rows.to(self.device)
        self._looked_up.clear()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.order_seed * 1_000_003 + self.batches)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed):
                logits = self.model(rows.features)
        loss = binary_cross_entropy_with_logits(logits.float(), rows.labels)
        # a field with several values weighs no more than one with a single value
        penalty = sum(vectors.float().square().sum(dim=-1).mean() for vectors in self._looked_up)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        (loss + self.recipe.embedding_l2 * penalty).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self._looked_up.clear()
        self.batches += 1

    def end_epoch(self) -> None:
        self.epochs, self.batches = self.epochs + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "batches": self.batches,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs, self.batches = state["epochs"], state["batches"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def _note(self, table: nn.Module, args: Any, vectors: Tensor) -> None:
        if table.training:
            self._looked_up.append(vectors)


def tables(model: nn.Module) -> list[nn.Embedding]:
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def make_optimizers(model: nn.Module, learning_rate: float, sparse_rows: int = SPARSE_ROWS) -> list[Optimizer]:
    """Adam for a model; its large embedding tables are made to have sparse gradients, and get an Adam of their own."""
    large = [table for table in tables(model) if table.num_embeddings >= sparse_rows]
    for table in large:
        table.sparse = True
    of_rows = [table.weight for table in large]
    row_wise = {id(weight) for weight in of_rows}
    dense = [weight for weight in model.parameters() if id(weight) not in row_wise]
    optimizers: list[Optimizer] = [torch.optim.Adam(dense, lr=learning_rate)]
    if of_rows:
        optimizers.append(torch.optim.SparseAdam(of_rows, lr=learning_rate))
    return optimizers
