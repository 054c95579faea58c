"""What the versions of an expert have in common: fields by their role, and weights that are prepared beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.mlp import LogitHead
from rankopt.zoo.sequence import BehaviourEmbedding

Features = Mapping[str, Tensor]
PREFIX = "features."


class Expert(nn.Module):
    """Where the fields of either role stand, and their look-ups."""

    def __init__(self, embedding: FieldEmbedding, context: Sequence[str], width: int) -> None:
        super().__init__()
        self.embedding = embedding
        fields = embedding.plain if isinstance(embedding, BehaviourEmbedding) else embedding.fields
        names = [field.name for field in fields]
        self.context_names = [name for name in names if PREFIX + name in context]
        self.target_names = [name for name in names if PREFIX + name not in context]
        self.at_context = torch.tensor([names.index(name) for name in self.context_names])
        self.at_target = torch.tensor([names.index(name) for name in self.target_names])
        self.width = width

    def context_vectors(self, context: Features) -> Tensor:
        """[K, D]"""
        return torch.cat([self._look_up(name, context) for name in self.context_names])

    def target_vectors(self, target: Features) -> Tensor:
        """[N, M, D]"""
        return torch.stack([self._look_up(name, target) for name in self.target_names], dim=1)

    def _look_up(self, name: str, features: Features) -> Tensor:
        return self.embedding.tables[name](features[PREFIX + name])

    def columns(self, places: Tensor) -> Tensor:
        """Where the values of these fields stand in all fields side by side."""
        return (places[:, None] * self.width + torch.arange(self.width)).flatten()

    def keep(self, name: str, value: Tensor) -> None:
        """Registers a weight that is prepared beforehand."""
        self.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))


def rest_of(head: LogitHead) -> nn.Sequential:
    """A head without its first linear layer."""
    return nn.Sequential(*list(head.hidden)[1:], head.output)


def first_of(head: LogitHead) -> nn.Linear:
    layer = head.hidden[0] if len(head.hidden) else head.output
    assert isinstance(layer, nn.Linear)
    return layer
