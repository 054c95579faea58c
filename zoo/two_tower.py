"""Two towers: one vector for the context, one for the target, and their scaled cosine.

Yi et al.: Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations. RecSys 2019.

    u = normalise(MLP_c([x_i : i context])),  v = normalise(MLP_t([x_i : i target]))
    logit = <u, v> / temperature + bias
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Schema
from rankopt.zoo.mlp import MLP


@dataclass(frozen=True, slots=True)
class TwoTowerConfig:
    """`width` is that of the vectors u and v; the temperature is learned."""

    embedding_dim: int = 16
    hidden: tuple[int, ...] = (128, 64)
    width: int = 32
    temperature: float = 0.2
    dropout: float = 0.2


class Tower(nn.Module):
    def __init__(self, in_width: int, config: TwoTowerConfig) -> None:
        super().__init__()
        self.hidden = MLP(in_width, config.hidden, config.dropout)
        self.output = nn.Linear(config.hidden[-1], config.width)

    def forward(self, x: Tensor) -> Tensor:
        """[R, in_width] -> [R, width], of norm one."""
        return normalize(self.output(self.hidden(x)), dim=-1)


class TwoTower(nn.Module):
    def __init__(self, schema: Schema, config: TwoTowerConfig) -> None:
        super().__init__()
        self.context, self.target = schema.places()
        self.embedding = FieldEmbedding(schema.fields, config.embedding_dim)
        self.context_tower = Tower(len(self.context) * config.embedding_dim, config)
        self.target_tower = Tower(len(self.target) * config.embedding_dim, config)
        self.scale = nn.Parameter(torch.tensor(1 / config.temperature))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        fields = self.embedding(features).unbind(dim=1)  # F of [R, D]
        u = self.context_tower(torch.cat([fields[place] for place in self.context], dim=1))
        v = self.target_tower(torch.cat([fields[place] for place in self.target], dim=1))
        return (u * v).sum(dim=-1) * self.scale + self.bias
