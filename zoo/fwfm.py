"""FwFM: a factorization machine in which every pair of fields has a weight.

Pan et al.: Field-weighted Factorization Machines for Click-Through Rate Prediction in Display Advertising.
WWW 2018, arXiv:1806.03514.

    logit = linear + sum_{i<j} r_ij <x_i, x_j>
    linear = b + sum_i w_i             a weight per id, "ids"
           | b + sum_i <x_i, w_i>      a vector per field, "fields" (FwFM_FiLV)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder


@dataclass(frozen=True, slots=True)
class FwFMConfig:
    embedding_dim: int = 16
    linear: Literal["ids", "fields"] = "fields"


class FwFM(nn.Module):
    left: Tensor
    right: Tensor

    def __init__(self, fields: Sequence[Field], config: FwFMConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.first_order = FirstOrder(fields) if config.linear == "ids" else None
        self.by_field = nn.Linear(len(fields) * config.embedding_dim, 1) if config.linear == "fields" else None
        left, right = torch.triu_indices(len(fields), len(fields), offset=1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.strength = nn.Linear(len(left), 1, bias=False)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        products = torch.index_select(x, 1, self.left) * torch.index_select(x, 1, self.right)  # [R, P, D]
        logit = self.strength(products.sum(dim=-1)).squeeze(-1)
        if self.first_order is not None:
            logit = logit + self.first_order(features)
        if self.by_field is not None:
            logit = logit + self.by_field(x.flatten(start_dim=1)).squeeze(-1)
        return logit
