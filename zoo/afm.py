"""AFM: a factorization machine that attends to its pairs of fields.

Xiao et al.: Attentional Factorization Machines: Learning the Weight of Feature Interactions via Attention Networks.
IJCAI 2017, arXiv:1708.04617. With * element by element:

    e_ij = x_i * x_j                                       for i < j               (eq. 2)
    a_ij = softmax_ij(h^T relu(W e_ij + b))                                        (eq. 5)
    logit = w_0 + sum_i w_i + p^T sum_{i<j} a_ij e_ij                              (eq. 6)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder


@dataclass(frozen=True, slots=True)
class AFMConfig:
    embedding_dim: int = 16
    attention: int = 16
    dropout: float = 0.2


class AFM(nn.Module):
    def __init__(self, fields: Sequence[Field], config: AFMConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.first_order = FirstOrder(fields)
        self.attention = nn.Sequential(
            nn.Linear(config.embedding_dim, config.attention), nn.ReLU(), nn.Linear(config.attention, 1, bias=False)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.embedding_dim, 1, bias=False)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        fields = self.embedding(features).unbind(dim=1)  # F of [R, D]
        left, right = zip(*combinations(fields, 2), strict=True)
        pairs = torch.stack(left, dim=1) * torch.stack(right, dim=1)  # [R, P, D]
        weights = torch.softmax(self.attention(pairs), dim=1)  # [R, P, 1]
        pooled = self.dropout((weights * pairs).sum(dim=1))
        return self.first_order(features) + self.output(pooled).squeeze(-1)
