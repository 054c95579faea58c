"""BST: a transformer over the user's earlier items and the candidate.

Chen et al.: Behavior Sequence Transformer for E-commerce Recommendation in Alibaba. DLP-KDD 2019,
arXiv:1905.06874. The sequence E = [t; h_1; ...; h_L] has the candidate first and then the items, newest first:

    E   <- E + P                                            a learned vector per place
    S   = LN(E + dropout(MH(E))),  MH: softmax(Q K^T / sqrt(d)) V per head, padding left out    (eq. 2-4)
    F   = LN(S + dropout(W_2 leaky_relu(W_1 S + b_1) + b_2))                                     (eq. 5)
    logit = head([e_1; ...; e_F; F_0; ...; F_L])

The paper's places are the time that has passed; here they are counted, as no time comes with the ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rankopt.zoo.fields import Field
from rankopt.zoo.sequence import BehaviourEmbedding


@dataclass(frozen=True, slots=True)
class BSTConfig:
    """`heads` divides the width of an item: its number of features times `embedding_dim`."""

    embedding_dim: int = 16
    layers: int = 1
    heads: int = 4
    feed_forward: int = 64
    head: tuple[int, ...] = (256, 128, 64)
    dropout: float = 0.2


class TransformerLayer(nn.Module):
    def __init__(self, width: int, config: BSTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.feed_forward), nn.LeakyReLU(), nn.Linear(config.feed_forward, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[R, S, W], bool [R, S] -> [R, S, W]."""
        rows, length, width = x.shape
        q, k, v = (
            part.view(rows, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])  # [R, H, S, d]
        x = self.norms[0](x + self.dropout(self.out(mixed.transpose(1, 2).reshape(rows, length, width))))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class BST(nn.Module):
    def __init__(self, fields: Sequence[Field], config: BSTConfig) -> None:
        super().__init__()
        self.embedding = BehaviourEmbedding(fields, config.embedding_dim)
        length, width = self.embedding.length + 1, self.embedding.width
        self.positions = nn.Parameter(torch.randn(length, width) * 0.03)
        self.layers = nn.ModuleList(TransformerLayer(width, config) for _ in range(config.layers))
        layers: list[nn.Module] = []
        before = len(self.embedding.plain) * config.embedding_dim + length * width
        for after in config.head:
            layers += [nn.Linear(before, after), nn.LeakyReLU(), nn.Dropout(config.dropout)]
            before = after
        self.head = nn.Sequential(*layers, nn.Linear(before, 1))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        plain, behaviour = self.embedding(features)
        x = torch.cat([behaviour.target.unsqueeze(1), behaviour.items], dim=1) + self.positions  # [R, 1+L, W]
        mask = functional.pad(behaviour.mask, (1, 0), value=True)  # the candidate is always there
        for layer in self.layers:
            x = layer(x, mask)
        x = x * mask.unsqueeze(-1)
        return self.head(torch.cat([plain.flatten(start_dim=1), x.flatten(start_dim=1)], dim=1)).squeeze(-1)
