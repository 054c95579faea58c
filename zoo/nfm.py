"""NFM: a perceptron over the element-wise products of all pairs of fields, summed.

He, Chua: Neural Factorization Machines for Sparse Predictive Analytics. SIGIR 2017, arXiv:1708.05027.

    f(x) = sum_{i<j} x_i * x_j = 1/2 ((sum_i x_i)^2 - sum_i x_i^2)    element by element
    logit = b + sum_i w_i + MLP(norm(f(x)))        norm: batch normalisation
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class NFMConfig:
    embedding_dim: int = 16
    hidden: tuple[int, ...] = HEAD
    dropout: float = 0.2


class NFM(nn.Module):
    def __init__(self, fields: Sequence[Field], config: NFMConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.first_order = FirstOrder(fields)
        self.norm = nn.BatchNorm1d(config.embedding_dim)
        self.deep = LogitHead(config.embedding_dim, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        pooled = torch.sub(torch.sum(x, dim=1).square(), torch.sum(x.square(), dim=1)).mul(0.5)  # [R, D]
        return self.first_order(features) + self.deep(self.norm(pooled))
