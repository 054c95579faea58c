"""InterHAt: one transformer layer over the fields, then crosses of rising order, each pooled by attention.

Li et al.: Interpretable Click-Through Rate Prediction through Hierarchical Attention. WSDM 2020. Over the fields
X_0 [F, D] of a row, with * element by element:

    Z   = norm(relu(attention(X_0) W_o) + X_0)             several heads, scaled scores
    X_1 = norm(W_2 relu(W_1 Z) + Z)                        the transformer layer
    u_p = sum_f a_pf X_pf,   a_p = softmax_f(w_p^T relu(W_p X_pf))      order p = 1, ..., P
    X_{p+1} = u_p * X_1 + X_p
    logit = MLP(sum_p b_p u_p),   b = softmax_p(v^T relu(V u_p))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import LogitHead


@dataclass(frozen=True, slots=True)
class InterHAtConfig:
    """`width` is that of all heads together, `order` the highest order of crosses."""

    embedding_dim: int = 16
    heads: int = 2
    width: int = 16
    order: int = 2
    hidden: tuple[int, ...] = (64, 64)
    dropout: float = 0.2


class FieldAttention(nn.Module):
    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query = nn.Linear(dim, width, bias=False)
        self.key = nn.Linear(dim, width, bias=False)
        self.value = nn.Linear(dim, width, bias=False)
        self.output = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, D] -> [R, F, D]."""
        rows, fields, _ = x.shape
        query, key, value = (
            layer(x).view(rows, fields, self.heads, self.head_width).permute(0, 2, 1, 3)
            for layer in (self.query, self.key, self.value)
        )
        # [R, H, F, d] each
        mixed = scaled_dot_product_attention(query, key, value)
        return self.output(mixed.permute(0, 2, 1, 3).flatten(start_dim=2))


class TransformerLayer(nn.Module):
    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.attention = FieldAttention(dim, heads, width)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.attention_norm = nn.LayerNorm(dim)
        self.output_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, D] -> [R, F, D]."""
        z = self.attention_norm(self.attention(x).relu() + x)
        return self.output_norm(self.feed_forward(z) + z)


class AttentionPooling(nn.Module):
    """A weighted mean of vectors that decides on its weights itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[R, n, D] -> [R, D]."""
        weights = self.score(x).softmax(dim=1)  # [R, n, 1]
        return torch.matmul(weights.transpose(1, 2), x).squeeze(1)


class InterHAt(nn.Module):
    def __init__(self, fields: Sequence[Field], config: InterHAtConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.embedding = FieldEmbedding(fields, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = TransformerLayer(dim, config.heads, config.width)
        self.pools = nn.ModuleList(AttentionPooling(dim) for _ in range(config.order))
        self.final_pool = AttentionPooling(dim)
        self.head = LogitHead(dim, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        first = self.transformer(self.dropout(self.embedding(features)))  # [R, F, D]
        x, orders = first, []
        for pool in self.pools:
            u = pool(x)  # [R, D]
            orders.append(u)
            x = u.unsqueeze(1) * first + x
        return self.head(self.final_pool(torch.stack(orders, dim=1)))
