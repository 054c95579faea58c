"""Wide & Deep: a linear model over crossed features beside a perceptron over embeddings.

Cheng et al.: Wide & Deep Learning for Recommender Systems. DLRS 2016, arXiv:1606.07792.

    logit = w_wide^T [x; phi(x)] + MLP([x_1; ...; x_F])                            (eq. 3)
    phi   = the cross-product transformations                                      (eq. 1)

Crossed here are all pairs of single-valued fields, each pair hashed into `buckets` weights of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder
from rankopt.zoo.mlp import HEAD, LogitHead

HASH_FACTOR = 1_000_003


@dataclass(frozen=True, slots=True)
class WideAndDeepConfig:
    embedding_dim: int = 16
    buckets: int = 1 << 14
    hidden: tuple[int, ...] = HEAD
    dropout: float = 0.2


class CrossedFeatures(nn.Module):
    """A weight for every pair of ids, in one table with `buckets` rows per pair of fields."""

    left: Tensor
    right: Tensor
    offsets: Tensor

    def __init__(self, fields: Sequence[Field], buckets: int) -> None:
        super().__init__()
        self.names = [field.name for field in fields if not field.shape]
        left, right = torch.triu_indices(len(self.names), len(self.names), offset=1)
        self.buckets = buckets
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.register_buffer("offsets", torch.arange(len(left)) * buckets, persistent=False)
        self.weights = nn.Embedding(len(left) * buckets, 1)
        nn.init.normal_(self.weights.weight, std=0.01)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> [R]."""
        ids = torch.stack([features[name] for name in self.names], dim=1)  # [R, single-valued fields]
        crossed = (ids[:, self.left] * HASH_FACTOR + ids[:, self.right]) % self.buckets  # [R, P]
        return self.weights(crossed + self.offsets).squeeze(-1).sum(dim=1)


class WideAndDeep(nn.Module):
    def __init__(self, fields: Sequence[Field], config: WideAndDeepConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.wide = FirstOrder(fields)
        self.crossed = CrossedFeatures(fields, config.buckets)
        self.deep = LogitHead(len(fields) * config.embedding_dim, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        wide = self.wide(features) + self.crossed(features)
        return wide + self.deep(self.embedding(features).flatten(start_dim=1))
