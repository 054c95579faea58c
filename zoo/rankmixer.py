"""RankMixer: tokens exchange slices by a fixed transpose, then each passes through a network of its own.

Zhu et al.: RankMixer: Scaling Up Ranking Models in Industrial Recommenders. CIKM 2025, arXiv:2507.15551. With T
tokens X [T, D], cut into T slices of width m = D / T each:

    mix(X)_h = [slice h of token 1; ...; slice h of token T]                       (multi-head token mixing)
    S  = norm(mix(X) + X)
    X' = norm(ffn(S) + S),   ffn(s_t) = W_2t gelu(W_1t s_t + b_1t) + b_2t          (per-token FFN)
    logit = MLP(X_L), over the mean of the tokens or all of them side by side

The public benchmarks make a token of every field, have neither residual nor norm behind the FFN, and put the tokens
side by side: those are the defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class RankMixerConfig:
    """`slice_width` is m: a token is `slice_width` times the number of fields wide."""

    embedding_dim: int = 16
    slice_width: int = 2
    layers: int = 2
    expansion: int = 4
    ffn_residual: bool = False
    pooling: Literal["flatten", "mean"] = "flatten"
    head: tuple[int, ...] = HEAD
    dropout: float = 0.2


class PerToken(nn.Module):
    """A linear layer of its own for every token."""

    def __init__(self, tokens: int, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, before, after))
        self.bias = nn.Parameter(torch.zeros(tokens, after))
        for matrix in self.weight:
            nn.init.xavier_normal_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        """[R, T, before] -> [R, T, after]."""
        return torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1) + self.bias


class MixerLayer(nn.Module):
    def __init__(self, tokens: int, width: int, config: RankMixerConfig) -> None:
        super().__init__()
        self.tokens = tokens
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.widen = PerToken(tokens, width, config.expansion * width)
        self.narrow = PerToken(tokens, config.expansion * width, width)
        self.output_norm = nn.LayerNorm(width) if config.ffn_residual else None

    def forward(self, x: Tensor) -> Tensor:
        """[R, T, D] -> [R, T, D]."""
        rows, tokens, width = x.shape
        mixed = x.view(rows, tokens, self.tokens, width // self.tokens).transpose(1, 2).reshape(rows, tokens, width)
        s = self.norm(mixed + x)
        out = self.narrow(gelu(self.widen(s)))
        return out if self.output_norm is None else self.output_norm(out + s)


class RankMixer(nn.Module):
    def __init__(self, fields: Sequence[Field], config: RankMixerConfig) -> None:
        super().__init__()
        tokens = len(fields)
        width = config.slice_width * tokens
        self.is_flat = config.pooling == "flatten"
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.tokens = PerToken(tokens, config.embedding_dim, width)
        self.layers = nn.Sequential(*(MixerLayer(tokens, width, config) for _ in range(config.layers)))
        self.head = LogitHead(tokens * width if self.is_flat else width, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.layers(self.tokens(self.embedding(features)).contiguous())  # [R, T, D]
        return self.head(x.flatten(start_dim=1) if self.is_flat else x.mean(dim=1))
