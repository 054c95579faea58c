"""MaskNet: hidden layers multiplied, element by element, with masks that the embeddings of the row generate.

Wang, She, Zhang: MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by Instance-Guided Mask.
DLP-KDD 2021, arXiv:2102.07619. With V_emb = [x_1; ...; x_F] and V_ln = [norm(x_1); ...; norm(x_F)]:

    mask(V_emb)    = W_2 relu(W_1 V_emb + b_1) + b_2
    block(V_emb, V) = relu(norm(W (mask(V_emb) * V)))

    serial     h_1 = block(V_emb, V_ln), h_b = block(V_emb, h_{b-1});  logit = w^T h_B + b
    parallel   logit = MLP([block_1(V_emb, V_ln); ...; block_B(V_emb, V_ln)])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import LogitHead


@dataclass(frozen=True, slots=True)
class MaskNetConfig:
    """`ratio` is the width of the hidden layer of a mask, over that of the mask; `head` is for the parallel model."""

    embedding_dim: int = 16
    structure: Literal["serial", "parallel"] = "serial"
    blocks: tuple[int, ...] = (128, 128, 64)
    ratio: float = 1.0
    head: tuple[int, ...] = (128, 64)
    dropout: float = 0.2


class MaskBlock(nn.Module):
    def __init__(self, row_width: int, in_width: int, width: int, ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = max(1, round(ratio * in_width))
        self.mask = nn.Sequential(nn.Linear(row_width, hidden), nn.ReLU(), nn.Linear(hidden, in_width))
        self.hidden = nn.Sequential(
            nn.Linear(in_width, width, bias=False), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout)
        )

    def forward(self, row: Tensor, x: Tensor) -> Tensor:
        """[R, F*D], [R, in_width] -> [R, width]."""
        return self.hidden(self.mask(row) * x)


class MaskNet(nn.Module):
    def __init__(self, fields: Sequence[Field], config: MaskNetConfig) -> None:
        super().__init__()
        row_width = len(fields) * config.embedding_dim
        self.is_serial = config.structure == "serial"
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.norms = nn.ModuleList(nn.LayerNorm(config.embedding_dim) for _ in fields)
        in_widths = [before for before, _ in pairwise((row_width, *config.blocks))]
        self.blocks = nn.ModuleList(
            MaskBlock(row_width, before if self.is_serial else row_width, width, config.ratio, config.dropout)
            for before, width in zip(in_widths, config.blocks, strict=True)
        )
        last = config.blocks[-1] if self.is_serial else sum(config.blocks)
        self.head = LogitHead(last, () if self.is_serial else config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        row = x.flatten(start_dim=1)
        normed = torch.cat([norm(x[:, i]) for i, norm in enumerate(self.norms)], dim=1)  # [R, F*D]
        if not self.is_serial:
            return self.head(torch.cat([block(row, normed) for block in self.blocks], dim=1))
        h = normed
        for block in self.blocks:
            h = block(row, h)
        return self.head(h)
