"""Wukong: a stack of layers that each take products of all pairs of embeddings, compressed.

Zhang et al.: Wukong: Towards a Scaling Law for Large-Scale Recommendation. ICML 2024, arXiv:2403.02545. With n
embeddings X [n, D] entering a layer:

    FMB(X) = reshape(MLP(norm(vec(X X^T Y))))          Y [n, k], computed as X (X^T Y)
    LCB(X) = W X                                       W [n_L, n]
    X' = norm([FMB(X); LCB(X)] + residual)             residual: X, or V X where the number of embeddings changes
    logit = MLP(vec(X_L))

The perceptron of FMB is one layer with a ReLU here, as in the public benchmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class WukongConfig:
    """A layer gives `fm` embeddings of FMB and `linear` of LCB; `rank` is the number of columns of Y."""

    embedding_dim: int = 16
    layers: int = 2
    fm: int = 16
    linear: int = 16
    rank: int = 32
    head: tuple[int, ...] = HEAD
    dropout: float = 0.2


class EmbeddingProjection(nn.Module):
    """New embeddings, each a linear combination of the given ones."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(before, after))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[R, before, D] -> [R, after, D]."""
        return (x.permute(0, 2, 1) @ self.weight).permute(0, 2, 1)


class FactorizationMachineBlock(nn.Module):
    def __init__(self, embeddings: int, dim: int, out: int, rank: int) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.empty(embeddings, rank))
        nn.init.xavier_normal_(self.weight)
        self.norm = nn.LayerNorm(embeddings * rank)
        self.linear = nn.Linear(embeddings * rank, out * dim)

    def forward(self, x: Tensor) -> Tensor:
        """[R, n, D] -> [R, out, D]."""
        compressed = x.permute(0, 2, 1) @ self.weight  # [R, D, k]
        products = torch.bmm(x, compressed).flatten(start_dim=1)  # [R, n*k]
        return self.linear(self.norm(products)).relu().view(-1, self.linear.out_features // self.dim, self.dim)


class WukongLayer(nn.Module):
    def __init__(self, embeddings: int, config: WukongConfig) -> None:
        super().__init__()
        dim, out = config.embedding_dim, config.fm + config.linear
        self.fm = FactorizationMachineBlock(embeddings, dim, config.fm, config.rank)
        self.linear = EmbeddingProjection(embeddings, config.linear)
        self.residual = nn.Identity() if embeddings == out else EmbeddingProjection(embeddings, out)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[R, n, D] -> [R, fm + linear, D]."""
        return self.norm(torch.cat([self.fm(x), self.linear(x)], dim=1) + self.residual(x))


class Wukong(nn.Module):
    def __init__(self, fields: Sequence[Field], config: WukongConfig) -> None:
        super().__init__()
        out = config.fm + config.linear
        counts = [before for before, _ in pairwise((len(fields), *[out] * config.layers))]
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.layers = nn.Sequential(*(WukongLayer(count, config) for count in counts))
        self.head = LogitHead(out * config.embedding_dim, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        return self.head(self.layers(self.embedding(features)).flatten(start_dim=1))
