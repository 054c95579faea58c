"""TransAct: the candidate is fused into every earlier action before a transformer reads them.

Xia et al.: TransAct: Transformer-based Realtime User Action Model for Recommendation at Pinterest. KDD 2023,
arXiv:2306.00248. With the candidate t and the actions h_1, ..., h_L (item and kind of action), newest first:

    x_j = W [h_j; t] + p_j                          early fusion: the candidate beside every action
    X   <- LN(X + W_O softmax(Q K^T / sqrt(d)) V)   a transformer encoder, padding left out, one head:
    X   <- LN(X + FFN(X))                           Q, K, V = X W_Q, X W_K, X W_V
    z   = [X_1; ...; X_K; max_j X_j]                the newest K actions, and a maximum over all
    logit = head([e_1; ...; e_F; z])

The published model hides actions of a random time window in training, which needs times that are not among the
fields here, and hands z to a cross network; the head here is a perceptron.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import LogitHead
from rankopt.zoo.sequence import BehaviourEmbedding

PADDED = -1e9
"""Score of a place without an action; finite, for a user may have none at all."""


@dataclass(frozen=True, slots=True)
class TransActConfig:
    """`newest` is K."""

    embedding_dim: int = 16
    width: int = 32
    layers: int = 2
    feed_forward: int = 32
    newest: int = 5
    head: tuple[int, ...] = (256, 128, 64)
    dropout: float = 0.2


class EncoderLayer(nn.Module):
    def __init__(self, config: TransActConfig) -> None:
        super().__init__()
        width = config.width
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.linear1 = nn.Linear(width, config.feed_forward)
        self.linear2 = nn.Linear(config.feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[R, L, width], bool [R, L] -> [R, L, width]."""
        scores = torch.einsum("rid,rjd->rij", self.query(x), self.key(x)) / x.shape[-1] ** 0.5
        weights = torch.softmax(scores.masked_fill(~mask.unsqueeze(1), PADDED), dim=-1)
        mixed = torch.einsum("rij,rjd->rid", self.dropout(weights), self.value(x))
        x = self.norm1(x + self.dropout(self.out(mixed)))
        return self.norm2(x + self.dropout(self.linear2(self.dropout(torch.relu(self.linear1(x))))))


class TransAct(nn.Module):
    def __init__(self, fields: Sequence[Field], config: TransActConfig) -> None:
        super().__init__()
        self.embedding = BehaviourEmbedding(fields, config.embedding_dim)
        self.newest = min(config.newest, self.embedding.length)
        self.fuse = nn.Linear(2 * self.embedding.width, config.width)
        self.positions = nn.Embedding(self.embedding.length, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        width = len(self.embedding.plain) * config.embedding_dim + (self.newest + 1) * config.width
        self.head = LogitHead(width, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        plain, (items, target, mask) = self.embedding(features)
        candidate = target.unsqueeze(1).repeat(1, items.shape[1], 1)  # [R, L, W]
        x = self.fuse(torch.cat([items, candidate], dim=-1)) + self.positions.weight
        for layer in self.encoder:
            x = layer(x, mask)
        x = x * mask.unsqueeze(-1)  # [R, L, width]
        newest = x[:, : self.newest].flatten(start_dim=1)
        return self.head(torch.cat([plain.flatten(start_dim=1), newest, x.amax(dim=1)], dim=1))
