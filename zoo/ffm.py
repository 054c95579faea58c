"""FFM: a field has another embedding for each field that it meets.

Juan et al.: Field-aware Factorization Machines for CTR Prediction. RecSys 2016. With v_{i,j} the vector that the id
of field i keeps for field j:

    logit = b + sum_i w_i + sum_{i<j} <v_{i,j}, v_{j,i}>

The F vectors of an id lie side by side in one table, which a history and the field that it lists share. The pairs are
written out one after the other, as is usual.
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
class FFMConfig:
    """`width` is that of one v_{i,j}; small, as an id has F of them."""

    width: int = 4


class FFM(nn.Module):
    def __init__(self, fields: Sequence[Field], config: FFMConfig) -> None:
        super().__init__()
        self.count = len(fields)
        self.embedding = FieldEmbedding(fields, self.count * config.width)
        self.first_order = FirstOrder(fields)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        v = self.embedding(features).unflatten(2, (self.count, -1))  # [R, F, F, width]
        products = [(v[:, i, j] * v[:, j, i]).sum(dim=-1) for i, j in combinations(range(self.count), 2)]
        return self.first_order(features) + torch.stack(products, dim=1).sum(dim=1)
