"""AutoInt: self-attention among the fields of a row.

Song et al.: AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks. CIKM 2019,
arXiv:1810.11921. Per layer and head h, over the fields X [F, D] of one row:

    A_h = softmax(X Q_h (X K_h)^T)          (eq. 5; the published model does not scale the scores)
    Y   = relu([A_1 X V_1; ...; A_H X V_H] + X W_res)                                  (eq. 6-8)
    logit = w . vec(Y_L) + b  (+ deep(vec(X)) for AutoInt+)

W_res only adapts the width: where it does not change, the residual is X itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import LogitHead


@dataclass(frozen=True, slots=True)
class AutoIntConfig:
    """`width` is that of all heads together; `deep` adds the parallel perceptron of AutoInt+."""

    embedding_dim: int = 16
    layers: int = 3
    heads: int = 2
    width: int = 32
    scaled: bool = False
    deep: tuple[int, ...] = ()
    dropout: float = 0.2


class InteractingLayer(nn.Module):
    def __init__(self, in_width: int, width: int, heads: int, scaled: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5 if scaled else 1.0
        self.query = nn.Linear(in_width, width, bias=False)
        self.key = nn.Linear(in_width, width, bias=False)
        self.value = nn.Linear(in_width, width, bias=False)
        self.residual = nn.Identity() if in_width == width else nn.Linear(in_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, in_width] -> [R, F, width]."""
        query, key, value = (self.split_heads(layer(x)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(-2, -1) * self.scale  # [R, H, F, F]
        mixed = torch.softmax(scores, dim=-1) @ value  # [R, H, F, d]
        return torch.relu(mixed.transpose(1, 2).flatten(start_dim=2) + self.residual(x))

    def split_heads(self, x: Tensor) -> Tensor:
        """[R, F, H*d] -> [R, H, F, d]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AutoInt(nn.Module):
    def __init__(self, fields: Sequence[Field], config: AutoIntConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        widths = [config.embedding_dim] + [config.width] * config.layers
        self.layers = nn.Sequential(
            *(InteractingLayer(before, after, config.heads, config.scaled) for before, after in pairwise(widths))
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(len(fields) * config.width, 1)
        flat = len(fields) * config.embedding_dim
        self.deep = LogitHead(flat, config.deep, config.dropout) if config.deep else None

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R] or [R, L]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        y = self.layers(self.dropout(x)).flatten(start_dim=1)  # [R, F*width]
        logit = self.output(y).squeeze(-1)
        if self.deep is not None:
            logit = logit + self.deep(x.flatten(start_dim=1))
        return logit
