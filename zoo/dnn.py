"""DNN: embeddings and a multi-layer perceptron, the baseline that every other ranker is compared with.

Covington, Adams, Sargin: Deep Neural Networks for YouTube Recommendations. RecSys 2016 (the ranking half).

    x = [e_1; ...; e_F]                      the embeddings of a row, side by side
    h_l = dropout(relu(W_l h_{l-1} + b_l))   h_0 = x
    logit = w . h_L + b
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class DNNConfig:
    embedding_dim: int = 16
    hidden: tuple[int, ...] = HEAD
    dropout: float = 0.2


class DNN(nn.Module):
    def __init__(self, fields: Sequence[Field], config: DNNConfig) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.head = LogitHead(len(fields) * config.embedding_dim, config.hidden, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R] or [R, L]} -> logits [R]."""
        x = self.embedding(features).flatten(start_dim=1)  # [R, F*D]
        return self.head(x)
