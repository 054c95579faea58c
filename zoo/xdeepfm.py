"""xDeepFM: the compressed interaction network (CIN), a linear part and a perceptron.

Lian et al.: xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems. KDD 2018,
arXiv:1803.05170. With X^0 [F, D] the fields of a row and * element by element:

    X^k_h = sum_{i,j} W^{k,h}_ij (X^{k-1}_i * X^0_j) + b^k_h                       (eq. 6)
    p^k_h = sum_d X^k_hd                                                           (eq. 7)
    logit = linear + w^T [p^1; ...; p^T] + MLP(vec(X^0))                           (eq. 9)

The layer is spelled as in most implementations: all products, then a convolution of width one over them. There is no
activation between the layers, as the paper recommends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.first_order import FirstOrder
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class XDeepFMConfig:
    """`maps` are the numbers of feature maps of the layers of the CIN."""

    embedding_dim: int = 16
    maps: tuple[int, ...] = (16, 16, 16)
    hidden: tuple[int, ...] = HEAD
    dropout: float = 0.2


class CIN(nn.Module):
    def __init__(self, fields: int, maps: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(before * fields, after, kernel_size=1) for before, after in pairwise((fields, *maps))
        )

    def forward(self, x0: Tensor) -> Tensor:
        """[R, F, D] -> [R, sum of the maps]."""
        x, pooled = x0, []
        for layer in self.layers:
            products = torch.einsum("rhd,rmd->rhmd", x, x0)
            x = layer(products.flatten(start_dim=1, end_dim=2))  # [R, maps, D]
            pooled.append(x.sum(dim=-1))
        return torch.cat(pooled, dim=-1)


class XDeepFM(nn.Module):
    def __init__(self, fields: Sequence[Field], config: XDeepFMConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.linear = FirstOrder(fields)
        self.cin = CIN(len(fields), config.maps)
        self.explicit = nn.Linear(sum(config.maps), 1, bias=False)
        self.deep = LogitHead(len(fields) * config.embedding_dim, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        explicit = self.explicit(self.cin(x)).squeeze(-1)
        return self.linear(features) + explicit + self.deep(x.flatten(start_dim=1))
