"""The linear part that factorization machines and their descendants begin with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field


class FirstOrder(nn.Module):
    """A weight per id and a bias; a multi-valued field has the mean of the weights of its ids."""

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__()
        self.weights = FieldEmbedding(fields, 1)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> [R]."""
        return self.weights(features).sum(dim=(1, 2)) + self.bias
