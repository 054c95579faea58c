"""FiBiNET: bilinear products of all pairs of fields, once of the embeddings and once of their reweighted copy.

Huang, Zhang, Zhang: FiBiNET: Combining Feature Importance and Bilinear Feature Interaction for Click-Through Rate
Prediction. RecSys 2019, arXiv:1905.09433. With * element by element:

    squeeze      z_i = mean_d x_id
    excitation   a = relu(W_2 relu(W_1 z)),  v_i = a_i x_i                         (SENET)
    bilinear     p_ij = (x_i W) * x_j,  q_ij = (v_i W') * v_j          for i < j
                 W is one for all, one for each left field, or one for each pair (interaction)
    logit = linear + MLP([p; q])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class FiBiNETConfig:
    """`reduction` is the factor by which the excitation narrows."""

    embedding_dim: int = 16
    bilinear: Literal["all", "each", "interaction"] = "interaction"
    reduction: int = 3
    hidden: tuple[int, ...] = HEAD
    dropout: float = 0.2


class SENet(nn.Module):
    def __init__(self, fields: int, reduction: int) -> None:
        super().__init__()
        reduced = max(1, fields // reduction)
        self.excitation = nn.Sequential(
            nn.Linear(fields, reduced, bias=False), nn.ReLU(), nn.Linear(reduced, fields, bias=False), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, D] -> the same, scaled field by field."""
        gates = self.excitation(torch.mean(x, dim=-1))
        return x * gates.unsqueeze(-1)


class BilinearPairs(nn.Module):
    left: Tensor
    right: Tensor

    def __init__(self, fields: int, dim: int, kind: Literal["all", "each", "interaction"]) -> None:
        super().__init__()
        left, right = torch.triu_indices(fields, fields, offset=1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.per_pair = kind == "interaction"
        count = {"all": 1, "each": fields - 1, "interaction": len(left)}[kind]
        self.weight = nn.Parameter(torch.empty(count, dim, dim))
        for matrix in self.weight:
            nn.init.xavier_normal_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, D] -> [R, P, D]."""
        if self.per_pair:
            projected = torch.einsum("rpd,pde->rpe", x[:, self.left], self.weight)
        else:
            projected = torch.matmul(x[:, :-1].unsqueeze(2), self.weight).squeeze(2)[:, self.left]
        return projected * x[:, self.right]


class FiBiNET(nn.Module):
    def __init__(self, fields: Sequence[Field], config: FiBiNETConfig) -> None:
        super().__init__()
        dim, pairs = config.embedding_dim, len(fields) * (len(fields) - 1) // 2
        self.embedding = FieldEmbedding(fields, dim)
        self.linear = FirstOrder(fields)
        self.senet = SENet(len(fields), config.reduction)
        self.raw_pairs = BilinearPairs(len(fields), dim, config.bilinear)
        self.scaled_pairs = BilinearPairs(len(fields), dim, config.bilinear)
        self.head = LogitHead(2 * pairs * dim, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        pairs = torch.cat([self.raw_pairs(x), self.scaled_pairs(self.senet(x))], dim=1)  # [R, 2*P, D]
        return self.linear(features) + self.head(pairs.flatten(start_dim=1))
