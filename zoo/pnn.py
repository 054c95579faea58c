"""PNN: a perceptron over the embeddings and their products.

Qu et al.: Product-based Neural Networks for User Response Prediction. ICDM 2016, arXiv:1611.00144.

    logit = MLP([vec(X); p])
    inner   p = {<x_i, x_j> : i < j}                     (IPNN)
    outer   p = vec(s s^T),  s = sum_i x_i                 (OPNN)

The paper's linear signal l_z and quadratic signal l_p are the two halves of the first layer of this perceptron.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class PNNConfig:
    embedding_dim: int = 16
    product: Literal["inner", "outer"] = "inner"
    hidden: tuple[int, ...] = HEAD
    dropout: float = 0.2


class InnerProducts(nn.Module):
    """The upper triangle of the Gram matrix, taken from its flattened form."""

    places: Tensor

    def __init__(self, fields: int) -> None:
        super().__init__()
        left, right = torch.triu_indices(fields, fields, offset=1)
        self.register_buffer("places", left * fields + right, persistent=False)
        self.out_width = len(left)

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, D] -> [R, F*(F-1)/2]."""
        gram = torch.matmul(x, x.mT)
        return gram.flatten(start_dim=1).index_select(1, self.places)


class OuterProduct(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_width = dim * dim

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, D] -> [R, D*D]."""
        total = x.sum(dim=1)
        return (total.unsqueeze(2) * total.unsqueeze(1)).flatten(start_dim=1)


class PNN(nn.Module):
    def __init__(self, fields: Sequence[Field], config: PNNConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.embedding = FieldEmbedding(fields, dim)
        self.product = InnerProducts(len(fields)) if config.product == "inner" else OuterProduct(dim)
        self.head = LogitHead(len(fields) * dim + self.product.out_width, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        return self.head(torch.cat([x.flatten(start_dim=1), self.product(x)], dim=1))
