"""GDCN: cross layers behind a gate.

Wang et al.: Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction. CIKM 2023, arXiv:2311.04635.
With x_0 = [e_1; ...; e_F] and * element by element:

    x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l) + x_l

    stacked    logit = w^T MLP(x_L) + b                                            (GDCN-S)
    parallel   logit = w^T [x_L; MLP(x_0)] + b                                     (GDCN-P)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, MLP


@dataclass(frozen=True, slots=True)
class GDCNConfig:
    embedding_dim: int = 16
    layers: int = 3
    structure: Literal["stacked", "parallel"] = "stacked"
    deep: tuple[int, ...] = HEAD
    dropout: float = 0.2


class GatedCross(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, width)
        self.gate = nn.Linear(width, width, bias=False)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[R, d], [R, d] -> [R, d]."""
        return x0 * self.weight(x) * self.gate(x).sigmoid() + x


class GDCN(nn.Module):
    def __init__(self, fields: Sequence[Field], config: GDCNConfig) -> None:
        super().__init__()
        width = len(fields) * config.embedding_dim
        self.is_stacked = config.structure == "stacked"
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.crosses = nn.ModuleList(GatedCross(width) for _ in range(config.layers))
        self.deep = MLP(width, config.deep, config.dropout)
        self.output = nn.Linear(config.deep[-1] + (0 if self.is_stacked else width), 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x0 = self.embedding(features).flatten(start_dim=1)  # [R, d]
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        joined = self.deep(x) if self.is_stacked else torch.cat([x, self.deep(x0)], dim=1)
        return self.output(joined).squeeze(-1)
