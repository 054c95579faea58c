"""FinalMLP: two perceptrons over differently gated embeddings, joined by a bilinear form.

Mao et al.: FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction. AAAI 2023, arXiv:2304.00902. With
x = [x_1; ...; x_F], * element by element, and heads cutting the outputs into k pieces:

    stream s   o_s = MLP_s(2 sigmoid(gate_s(z_s)) * x)                  z_1: context fields, z_2: target fields
    logit = b + w_1^T o_1 + w_2^T o_2 + sum_k o_1k^T W_k o_2k

Which fields drive a gate is a choice; usual is one stream for the side of the user and one for the side of the item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Schema
from rankopt.zoo.mlp import MLP


@dataclass(frozen=True, slots=True)
class FinalMLPConfig:
    embedding_dim: int = 16
    gate_hidden: int = 64
    streams: tuple[tuple[int, ...], tuple[int, ...]] = ((128, 64), (128, 64))
    heads: int = 2
    dropout: float = 0.2


class FeatureGate(nn.Module):
    """Weighs every element of the row by a number in (0, 2) that some of the fields decide on."""

    def __init__(self, places: Sequence[int], fields: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.places = list(places)
        self.gate = nn.Sequential(nn.Linear(len(self.places) * dim, hidden), nn.ReLU(), nn.Linear(hidden, fields * dim))

    def forward(self, x: Tensor) -> Tensor:
        """[R, F, D] -> [R, F*D]."""
        gate = torch.sigmoid(self.gate(x[:, self.places, :].flatten(start_dim=1)))
        return x.flatten(start_dim=1) * gate * 2


class BilinearFusion(nn.Module):
    def __init__(self, left: int, right: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_left = nn.Linear(left, 1)
        self.linear_right = nn.Linear(right, 1, bias=False)
        self.weight = nn.Parameter(torch.empty(heads, left // heads, right // heads))
        nn.init.xavier_normal_(self.weight)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """[R, left], [R, right] -> [R]."""
        heads_left, heads_right = (x.unflatten(1, (self.heads, -1)) for x in (left, right))  # [R, H, d]
        bilinear = torch.einsum("rhi,hij,rhj->r", heads_left, self.weight, heads_right)
        return (self.linear_left(left) + self.linear_right(right)).squeeze(-1) + bilinear


class FinalMLP(nn.Module):
    def __init__(self, schema: Schema, config: FinalMLPConfig) -> None:
        super().__init__()
        fields, dim = len(schema.fields), config.embedding_dim
        self.embedding = FieldEmbedding(schema.fields, dim)
        self.gates = nn.ModuleList(FeatureGate(places, fields, dim, config.gate_hidden) for places in schema.places())
        self.streams = nn.ModuleList(MLP(fields * dim, hidden, config.dropout) for hidden in config.streams)
        left, right = (hidden[-1] for hidden in config.streams)
        self.fusion = BilinearFusion(left, right, config.heads)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        left, right = (stream(gate(x)) for stream, gate in zip(self.streams, self.gates, strict=True))
        return self.fusion(left, right)
