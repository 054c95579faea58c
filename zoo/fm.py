"""FM, the factorization machine: every pair of fields interacts by the dot product of their embeddings.

Rendle: Factorization Machines. ICDM 2010. Over the fields x_1, ..., x_F of a row:

    logit = b + sum_i w_i + sum_{i<j} <x_i, x_j>                                   (eq. 1)
    sum_{i<j} <x_i, x_j> = 1/2 sum_d ((sum_i x_id)^2 - sum_i x_id^2)               (lemma 3.1)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder


@dataclass(frozen=True, slots=True)
class FMConfig:
    embedding_dim: int = 16


class FM(nn.Module):
    def __init__(self, fields: Sequence[Field], config: FMConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.first_order = FirstOrder(fields)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        square_of_sum = x.sum(dim=1).pow(2)
        sum_of_squares = x.pow(2).sum(dim=1)
        return self.first_order(features) + 0.5 * (square_of_sum - sum_of_squares).sum(dim=1)
