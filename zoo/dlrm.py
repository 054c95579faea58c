"""DLRM: all pairwise dot products of the fields, then a perceptron.

Naumov et al.: Deep Learning Recommendation Model for Personalization and Recommendation Systems.
arXiv:1906.00091.

    z = bottom(dense)                              numeric features become one more vector of width D
    p = {<x_i, x_j> : i > j},  x = (z, e_1, ..., e_F)
    logit = top([z; p])

Pairs are taken from the strictly lower triangle of X X^T, row by row. Without numeric features there is
neither a bottom perceptron nor z.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, MLP, LogitHead


@dataclass(frozen=True, slots=True)
class DLRMConfig:
    """`dense` names numeric features: float inputs [R] that come beside the ids."""

    embedding_dim: int = 16
    dense: tuple[str, ...] = ()
    bottom: tuple[int, ...] = (64,)
    top: tuple[int, ...] = HEAD
    dropout: float = 0.2


class DLRM(nn.Module):
    pairs: Tensor

    def __init__(self, fields: Sequence[Field], config: DLRMConfig) -> None:
        super().__init__()
        self.dense = config.dense
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        bottom = (*config.bottom, config.embedding_dim)
        self.bottom = MLP(len(self.dense), bottom, dropout=0.0) if self.dense else None
        vectors = len(fields) + (1 if self.dense else 0)
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, offset=-1), persistent=False)
        width = vectors * (vectors - 1) // 2 + (config.embedding_dim if self.dense else 0)
        self.top = LogitHead(width, config.top, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R] or [R, L], dense feature: float [R]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        if self.bottom is None:
            return self.top(self.dots(x))
        z = self.bottom(torch.stack([features[name] for name in self.dense], dim=1))  # [R, D]
        x = torch.cat([z.unsqueeze(1), x], dim=1)  # [R, 1+F, D]
        return self.top(torch.cat([z, self.dots(x)], dim=1))

    def dots(self, x: Tensor) -> Tensor:
        """[R, V, D] -> [R, V*(V-1)/2], the dot product of every pair of vectors."""
        gram = torch.bmm(x, x.transpose(1, 2))
        rows, columns = self.pairs
        return gram[:, rows, columns]
