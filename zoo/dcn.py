"""DCN: crosses with one weight vector per layer, beside a deep network.

Wang et al.: Deep & Cross Network for Ad Click Predictions. ADKDD 2017, arXiv:1708.05123. With x_0 = [e_1; ...; e_F]:

    x_{l+1} = x_0 (w_l^T x_l) + b_l + x_l                                          (eq. 3)
    logit = w^T [x_L; MLP(x_0)] + b                                                (eq. 5)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import MLP


@dataclass(frozen=True, slots=True)
class DCNConfig:
    embedding_dim: int = 16
    layers: int = 3
    deep: tuple[int, ...] = (256, 128)
    dropout: float = 0.2


class VectorCross(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[R, d], [R, d] -> [R, d]."""
        return x0 * torch.mm(x, self.weight) + self.bias + x


class DCN(nn.Module):
    def __init__(self, fields: Sequence[Field], config: DCNConfig) -> None:
        super().__init__()
        width = len(fields) * config.embedding_dim
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.crosses = nn.ModuleList(VectorCross(width) for _ in range(config.layers))
        self.deep = MLP(width, config.deep, config.dropout)
        self.output = nn.Linear(width + config.deep[-1], 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x0 = self.embedding(features).flatten(start_dim=1)  # [R, d]
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        return self.output(torch.cat([x, self.deep(x0)], dim=1)).squeeze(-1)
