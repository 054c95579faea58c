"""Rank-aware attention: AutoInt in two streams, in which the context never sees the target.

Tkach: Context Features Are Cheap (the paper on rank-aware decomposition), section 4.3. With the context fields C_0
[K, D] and the target fields T_0 [M, D] of a row, per layer and head:

    C_{l+1} = relu(softmax(C Q_c (C K_c)^T) C V_c + C R_c)                 a layer of AutoInt over the context
    T_{l+1} = relu(softmax(T Q_t [C K'_c; T K_t]^T) [C V'_c; T V_t] + T R_t)
    logit = w^T vec([C_L; T_L]) + b  (+ deep(vec([C_0; T_0])))

R only adapts the width: where that does not change, the residual is the input. It is another function than AutoInt,
whose context fields attend to target fields too.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankopt.zoo.autoint import InteractingLayer
from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Schema
from rankopt.zoo.mlp import LogitHead


@dataclass(frozen=True, slots=True)
class RankAwareAttentionConfig:
    """`width` is that of all heads together; `deep` adds a parallel perceptron."""

    embedding_dim: int = 16
    layers: int = 3
    heads: int = 2
    width: int = 32
    scaled: bool = False
    deep: tuple[int, ...] = ()
    dropout: float = 0.2


class TargetLayer(nn.Module):
    """The layer of the target stream: queries of target fields, keys and values of all fields."""

    def __init__(self, in_width: int, width: int, heads: int, scaled: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5 if scaled else 1.0
        self.query = nn.Linear(in_width, width, bias=False)
        self.context_key_value = nn.Linear(in_width, 2 * width, bias=False)
        self.target_key_value = nn.Linear(in_width, 2 * width, bias=False)
        self.residual = nn.Identity() if in_width == width else nn.Linear(in_width, width, bias=False)

    def forward(self, target: Tensor, context: Tensor) -> Tensor:
        """[R, M, in_width], [R, K, in_width] -> [R, M, width]."""
        both = torch.cat([self.context_key_value(context), self.target_key_value(target)], dim=1)
        key, value = both.chunk(2, dim=-1)  # [R, K+M, width] each
        query, key, value = (x.unflatten(-1, (self.heads, -1)) for x in (self.query(target), key, value))
        scores = torch.einsum("rmhd,rfhd->rhmf", query, key) * self.scale
        mixed = torch.einsum("rhmf,rfhd->rmhd", scores.softmax(dim=-1), value)
        return torch.relu(mixed.flatten(start_dim=2) + self.residual(target))


class RankAwareAttention(nn.Module):
    def __init__(self, schema: Schema, config: RankAwareAttentionConfig) -> None:
        super().__init__()
        self.context, self.target = schema.places()
        self.embedding = FieldEmbedding(schema.fields, config.embedding_dim)
        widths = list(pairwise([config.embedding_dim] + [config.width] * config.layers))
        options = (config.heads, config.scaled)
        self.context_layers = nn.ModuleList(InteractingLayer(*pair, *options) for pair in widths)
        self.target_layers = nn.ModuleList(TargetLayer(*pair, *options) for pair in widths)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(len(schema.fields) * config.width, 1)
        flat = len(schema.fields) * config.embedding_dim
        self.deep = LogitHead(flat, config.deep, config.dropout) if config.deep else None

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        dropped = self.dropout(x)
        context = torch.stack([dropped[:, place] for place in self.context], dim=1)
        target = torch.stack([dropped[:, place] for place in self.target], dim=1)
        for context_layer, target_layer in zip(self.context_layers, self.target_layers, strict=True):
            context, target = context_layer(context), target_layer(target, context)
        logit = self.output(torch.cat([context, target], dim=1).flatten(start_dim=1)).squeeze(-1)
        if self.deep is not None:
            logit = logit + self.deep(x.flatten(start_dim=1))
        return logit
