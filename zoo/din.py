"""DIN: the interest of a user depends on the candidate that is looked at.

Zhou et al.: Deep Interest Network for Click-Through Rate Prediction. KDD 2018, arXiv:1706.06978. With the
candidate t and the user's earlier items h_1, ..., h_L:

    a_j = unit([t; h_j; t - h_j; t * h_j])        a small perceptron; 0 at padding; not normalised
    u   = sum_j a_j h_j                           (eq. 3)
    logit = head([e_1; ...; e_F; u])

    Dice(s) = p(s) s + (1 - p(s)) alpha s,   p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + eps))   (eq. 5)

E and Var are of the batch in training and running averages after it. `softmax=True` normalises the a_j, as many
implementations do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.fields import Field
from rankopt.zoo.sequence import Behaviour, BehaviourEmbedding

Activation = Literal["dice", "prelu"]

PADDED = -1e9
"""Score of a place without an item: its weight is 0, unless no place has one."""


@dataclass(frozen=True, slots=True)
class DINConfig:
    embedding_dim: int = 16
    unit: tuple[int, ...] = (32, 16)
    head: tuple[int, ...] = (200, 80)
    activation: Activation = "dice"
    softmax: bool = False
    dropout: float = 0.2


class Dice(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, s: Tensor) -> Tensor:
        """[R, width] -> the same."""
        p = torch.sigmoid(self.norm(s))
        return p * s + (1 - p) * self.alpha * s


def perceptron(width: int, hidden: Sequence[int], activation: Activation, dropout: float = 0.0) -> nn.Sequential:
    """[R, width] -> [R, 1]."""
    layers: list[nn.Module] = []
    for before, after in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(before, after), Dice(after) if activation == "dice" else nn.PReLU(after)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else width, 1))


class ActivationUnit(nn.Module):
    """How much each earlier item says about the candidate."""

    def __init__(self, width: int, config: DINConfig) -> None:
        super().__init__()
        self.softmax = config.softmax
        self.unit = perceptron(4 * width, config.unit, config.activation)

    def forward(self, behaviour: Behaviour) -> Tensor:
        """Weights [R, L]."""
        h = behaviour.items
        length = h.shape[1]
        t = behaviour.target.unsqueeze(1).expand(-1, length, -1)
        pairs = torch.cat([t, h, t - h, t * h], dim=-1)  # [R, L, 4*W]
        scores = self.unit(pairs.flatten(0, 1)).view(-1, length)
        if self.softmax:
            scores = torch.softmax(scores.masked_fill(~behaviour.mask, PADDED), dim=-1)
        return scores.masked_fill(~behaviour.mask, 0.0)


class DIN(nn.Module):
    def __init__(self, fields: Sequence[Field], config: DINConfig) -> None:
        super().__init__()
        self.embedding = BehaviourEmbedding(fields, config.embedding_dim)
        self.attention = ActivationUnit(self.embedding.width, config)
        width = len(self.embedding.plain) * config.embedding_dim + self.embedding.width
        self.head = perceptron(width, config.head, config.activation, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        plain, behaviour = self.embedding(features)
        weights = self.attention(behaviour)  # [R, L]
        interest = torch.sum(weights.unsqueeze(-1) * behaviour.items, dim=1)  # [R, W]
        return self.head(torch.cat([plain.flatten(start_dim=1), interest], dim=1)).squeeze(-1)
