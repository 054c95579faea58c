"""PPNet and LHUC: hidden units of a perceptron, scaled by gates that the context decides on.

PPNet: Chang et al.: PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
Information. KDD 2023, arXiv:2302.01115. LHUC: Swietojanski, Li, Renals: Learning Hidden Unit Contributions for
Unsupervised Acoustic Model Adaptation. TASLP 2016, arXiv:1601.02828. With the row x = [x_1; ...; x_F], its context
fields p, and * element by element:

    g_l = 2 sigmoid(V_l relu(U_l z + a_l) + e_l)           z = [p; x] with no gradient into x (PPNet), or p (LHUC)
    h_l = g_l * relu(W_l h_{l-1} + b_l),  h_0 = x
    logit = w^T h_L + b
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Schema


@dataclass(frozen=True, slots=True)
class PPNetConfig:
    """`sees_row` is PPNet; without it gates depend on the context alone, as in LHUC."""

    embedding_dim: int = 16
    hidden: tuple[int, ...] = (256, 128, 64)
    gate_hidden: int = 32
    sees_row: bool = True
    dropout: float = 0.2


class Gate(nn.Module):
    def __init__(self, in_width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_width, hidden), nn.ReLU(), nn.Linear(hidden, out), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        """[R, in_width] -> [R, out], in (0, 2)."""
        return 2 * self.layers(z)


class PPNet(nn.Module):
    def __init__(self, schema: Schema, config: PPNetConfig) -> None:
        super().__init__()
        self.context, _ = schema.places()
        self.sees_row = config.sees_row
        width = len(schema.fields) * config.embedding_dim
        gate_width = len(self.context) * config.embedding_dim + (width if config.sees_row else 0)
        self.embedding = FieldEmbedding(schema.fields, config.embedding_dim)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise((width, *config.hidden)))
        self.gates = nn.ModuleList(Gate(gate_width, config.gate_hidden, out) for out in config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden[-1], 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        h = x.flatten(start_dim=1)
        z = x[:, self.context].flatten(start_dim=1)
        if self.sees_row:
            z = torch.cat([z, h.detach()], dim=1)
        for layer, gate in zip(self.layers, self.gates, strict=True):
            h = self.dropout(gate(z) * layer(h).relu())
        return self.output(h).squeeze(-1)
