"""DeepFM: a factorization machine and a perceptron over the same embeddings.

Guo et al.: DeepFM: A Factorization-Machine based Neural Network for CTR Prediction. IJCAI 2017, arXiv:1703.04247.

    logit = y_FM + y_DNN                                                           (eq. 1)
    y_FM  = b + sum_i w_i + sum_{i<j} <x_i, x_j>                                   (eq. 2)
    y_DNN = MLP([x_1; ...; x_F])
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class DeepFMConfig:
    embedding_dim: int = 16
    hidden: tuple[int, ...] = HEAD
    dropout: float = 0.2


class DeepFM(nn.Module):
    def __init__(self, fields: Sequence[Field], config: DeepFMConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.first_order = FirstOrder(fields)
        self.deep = LogitHead(len(fields) * config.embedding_dim, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        total = x.sum(dim=1)  # [R, D]
        second_order = 0.5 * ((total * total).sum(dim=1) - (x * x).sum(dim=(1, 2)))
        return self.first_order(features) + second_order + self.deep(x.flatten(start_dim=1))
