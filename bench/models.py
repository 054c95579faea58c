"""The models that the figures are about, with requests for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rankopt.zoo.fields import Field
from rankopt.zoo.registry import ENTRIES

VOCABULARY = 1000


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with `context` context fields and `target` target fields, which interleave."""

    name: str
    model: nn.Module
    context: tuple[str, ...]
    target: tuple[str, ...]

    def request(self, candidates: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Random ids: context [1], target [N], by input path."""
        draw = torch.Generator().manual_seed(seed)
        ids = [
            torch.randint(1, VOCABULARY, (n,), generator=draw)
            for n in (*[1] * len(self.context), *[candidates] * len(self.target))
        ]
        names = [f"features.{name}" for name in (*self.context, *self.target)]
        inputs = dict(zip(names, ids, strict=True))
        return (
            {name: inputs[name] for name in names[: len(self.context)]},
            {name: inputs[name] for name in names[len(self.context) :]},
        )

    def rows(self, context: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the original model reads: every context id repeated for every candidate."""
        count = next(iter(target.values())).shape[0]
        tiled = {name: ids.expand(count).contiguous() for name, ids in context.items()} | target
        order = [f"features.{name}" for name in field_order(self.context, self.target)]
        return {name.removeprefix("features."): tiled[name] for name in order}


def field_order(context: Sequence[str], target: Sequence[str]) -> list[str]:
    """Context fields with the target fields spread among them, as in real models."""
    order = list(context)
    for i, name in enumerate(target):
        order.insert((i + 1) * len(order) // (len(target) + 1) + i % 2, name)
    return order


def subject(name: str, entry: str, context: int, target: int, seed: int = 0, **config: object) -> Subject:
    """A freshly initialised zoo model over `context + target` fields."""
    torch.manual_seed(seed)
    contexts = tuple(f"c{i}" for i in range(context))
    targets = tuple(f"t{i}" for i in range(target))
    fields = [Field(field, VOCABULARY) for field in field_order(contexts, targets)]
    given = ENTRIES[entry]
    model = given.build(fields, replace(given.config, **config)).eval()
    for table in model.modules():
        if isinstance(table, nn.Embedding):
            nn.init.normal_(table.weight, std=0.3)
    return Subject(name, model, contexts, targets)


def headline() -> list[Subject]:
    """The models of the headline figures (docs/benchmarks.md)."""
    return [
        subject("dlrm", "dlrm", 27, 4, embedding_dim=128, top=(512, 256)),
        subject("dcnv2", "dcnv2", 40, 12, embedding_dim=16, layers=3, head=(256, 128, 64, 32)),
        subject("dcnv2, cross layers only", "dcnv2", 40, 12, embedding_dim=16, layers=3, head=()),
        subject("autoint", "autoint", 20, 6, embedding_dim=32, layers=1, deep=()),
        subject("mlcc", "mlcc", 20, 6, embedding_dim=32),
    ]
