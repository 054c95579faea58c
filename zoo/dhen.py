"""DHEN: layers that are each an ensemble of several kinds of interaction.

Zhang et al.: DHEN: A Deep and Hierarchical Ensemble Network for Large-Scale Click-Through Rate Prediction.
DLP-KDD 2022, arXiv:2203.11014. With the n embeddings X [n, D] entering a layer, and l embeddings per module:

    X' = norm(ensemble_i(module_i(X)) + shortcut(X))       shortcut: X, or W X where the number of embeddings changes
    dot         reshape(MLP({<x_i, x_j> : i < j}))
    attention   W encoder(X)                               an encoder layer of a transformer
    cross       W (X^T X) + b
    linear      W X
    ensemble    concatenation, or sum
    logit = MLP(vec(X_L))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, MLP, LogitHead

Interaction = Literal["dot", "attention", "cross", "linear"]


@dataclass(frozen=True, slots=True)
class DHENConfig:
    """`tokens` is the number l of embeddings that a module gives."""

    embedding_dim: int = 16
    layers: int = 2
    modules: tuple[Interaction, ...] = ("dot", "attention", "cross", "linear")
    ensemble: Literal["concat", "sum"] = "concat"
    tokens: int = 4
    heads: int = 2
    dot_hidden: tuple[int, ...] = (64,)
    head: tuple[int, ...] = HEAD
    dropout: float = 0.2

    @property
    def out_tokens(self) -> int:
        """The number of embeddings that a layer gives."""
        return self.tokens * (len(self.modules) if self.ensemble == "concat" else 1)


class FieldLinear(nn.Module):
    """A linear layer over the axis of embeddings."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(after, before))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[R, before, D] -> [R, after, D]."""
        return torch.einsum("ln,rnd->rld", self.weight, x)


class DotInteraction(nn.Module):
    left: Tensor
    right: Tensor

    def __init__(self, tokens: int, config: DHENConfig) -> None:
        super().__init__()
        left, right = torch.triu_indices(tokens, tokens, offset=1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.mlp = MLP(len(left), (*config.dot_hidden, config.tokens * config.embedding_dim), config.dropout)
        self.shape = (config.tokens, config.embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[R, n, D] -> [R, l, D]."""
        gram = torch.einsum("rid,rjd->rij", x, x)
        return self.mlp(gram[:, self.left, self.right]).unflatten(1, self.shape)


class AttentionInteraction(nn.Module):
    def __init__(self, tokens: int, config: DHENConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.encoder = nn.TransformerEncoderLayer(dim, config.heads, 2 * dim, config.dropout, batch_first=True)
        self.linear = FieldLinear(tokens, config.tokens)

    def forward(self, x: Tensor) -> Tensor:
        """[R, n, D] -> [R, l, D]."""
        return self.linear(self.encoder(x))


class CrossInteraction(nn.Module):
    def __init__(self, tokens: int, config: DHENConfig) -> None:
        super().__init__()
        self.linear = FieldLinear(config.embedding_dim, config.tokens)
        self.bias = nn.Parameter(torch.zeros(config.tokens, config.embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        """[R, n, D] -> [R, l, D]."""
        return self.linear(x.transpose(1, 2) @ x) + self.bias


class LinearInteraction(FieldLinear):
    def __init__(self, tokens: int, config: DHENConfig) -> None:
        super().__init__(tokens, config.tokens)


MODULES: dict[Interaction, Callable[[int, DHENConfig], nn.Module]] = {
    "dot": DotInteraction,
    "attention": AttentionInteraction,
    "cross": CrossInteraction,
    "linear": LinearInteraction,
}


class DHENLayer(nn.Module):
    def __init__(self, tokens: int, config: DHENConfig) -> None:
        super().__init__()
        self.is_concat = config.ensemble == "concat"
        self.interactions = nn.ModuleList(MODULES[name](tokens, config) for name in config.modules)
        same = tokens == config.out_tokens
        self.shortcut = nn.Identity() if same else FieldLinear(tokens, config.out_tokens)
        self.norm = nn.LayerNorm(config.embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[R, n, D] -> [R, out_tokens, D]."""
        results = [interaction(x) for interaction in self.interactions]
        joined = torch.cat(results, dim=1) if self.is_concat else torch.stack(results).sum(dim=0)
        return self.norm(joined + self.shortcut(x))


class DHEN(nn.Module):
    def __init__(self, fields: Sequence[Field], config: DHENConfig) -> None:
        super().__init__()
        counts = [before for before, _ in pairwise((len(fields), *[config.out_tokens] * config.layers))]
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.layers = nn.Sequential(*(DHENLayer(count, config) for count in counts))
        self.head = LogitHead(config.out_tokens * config.embedding_dim, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        return self.head(self.layers(self.embedding(features)).flatten(start_dim=1))
