"""DCN V2: explicit feature crosses by multiplying with the input again, layer after layer.

Wang et al.: DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
Systems. WWW 2021, arXiv:2008.13535. With x_0 = [e_1; ...; e_F] of width d, and * element by element:

    full rank     x_{l+1} = x_0 * (W x_l + b) + x_l                                                  (eq. 1)
    low rank      x_{l+1} = x_0 * (U (V^T x_l) + b) + x_l             U, V: d x r                    (eq. 2)
    mixture       x_{l+1} = sum_i G_i(x_l) E_i(x_l) + x_l             G = softmax(gate x_l)          (eq. 3)
                  E_i(x)  = x_0 * (U_i tanh(C_i tanh(V_i^T x)) + b)   C_i: r x r                     (eq. 4)

    stacked       logit = head(x_L)
    parallel      logit = head([x_L; deep(x_0)])

Common baselines keep the bias of the full-rank layer outside of the product, x_0 * (W x_l) + b + x_l: that is
`bias_inside=False`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, MLP, LogitHead


@dataclass(frozen=True, slots=True)
class DCNv2Config:
    """`rank=None` is the full-rank layer, `experts > 1` the mixture (which needs a rank)."""

    embedding_dim: int = 16
    layers: int = 3
    rank: int | None = None
    experts: int = 1
    bias_inside: bool = True
    structure: Literal["stacked", "parallel"] = "stacked"
    deep: tuple[int, ...] = (128, 64)
    head: tuple[int, ...] = HEAD
    dropout: float = 0.2


BASELINE = DCNv2Config(layers=2, bias_inside=False, structure="parallel")
"""The configuration of the public benchmarks that MLCC is compared on."""


class FullRankCross(nn.Module):
    def __init__(self, width: int, bias_inside: bool) -> None:
        super().__init__()
        self.bias_inside = bias_inside
        self.weight = nn.Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[R, d], [R, d] -> [R, d]."""
        if self.bias_inside:
            return x0 * (self.weight(x) + self.bias) + x
        return x0 * self.weight(x) + self.bias + x


class LowRankCross(nn.Module):
    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.v = nn.Linear(width, rank, bias=False)
        self.u = nn.Linear(rank, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[R, d], [R, d] -> [R, d]."""
        return x0 * self.u(self.v(x)) + x


class MixtureCross(nn.Module):
    def __init__(self, width: int, rank: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.v = nn.Parameter(torch.empty(experts, width, rank))
        self.c = nn.Parameter(torch.empty(experts, rank, rank))
        self.u = nn.Parameter(torch.empty(experts, rank, width))
        self.bias = nn.Parameter(torch.zeros(width))
        for matrix in (self.v, self.c, self.u):
            for expert in matrix:
                nn.init.xavier_uniform_(expert)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """[R, d], [R, d] -> [R, d]."""
        hidden = torch.tanh(torch.einsum("rd,edk->rek", x, self.v))
        hidden = torch.tanh(torch.einsum("rek,ekj->rej", hidden, self.c))
        crossed = x0.unsqueeze(1) * (torch.einsum("rek,ekd->red", hidden, self.u) + self.bias)  # [R, E, d]
        weights = torch.softmax(self.gate(x), dim=-1)  # [R, E]
        return torch.einsum("re,red->rd", weights, crossed) + x


def cross_layer(width: int, config: DCNv2Config) -> nn.Module:
    """The cross layer that the configuration asks for.

    Raises:
        ValueError: the configuration asks for two things at once that no layer of the paper does.
    """
    if config.rank is None and config.experts > 1:
        raise ValueError("a mixture of experts is of low rank: set rank as well")
    if config.rank is not None and not config.bias_inside:
        raise ValueError("bias_inside=False is a spelling of the full-rank layer: leave rank=None")
    if config.rank is None:
        return FullRankCross(width, config.bias_inside)
    if config.experts > 1:
        return MixtureCross(width, config.rank, config.experts)
    return LowRankCross(width, config.rank)


class DCNv2(nn.Module):
    def __init__(self, fields: Sequence[Field], config: DCNv2Config) -> None:
        super().__init__()
        width = len(fields) * config.embedding_dim
        is_parallel = config.structure == "parallel"
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.crosses = nn.ModuleList(cross_layer(width, config) for _ in range(config.layers))
        self.deep = MLP(width, config.deep, config.dropout) if is_parallel else None
        self.head = LogitHead(width + config.deep[-1] if is_parallel else width, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R] or [R, L]} -> logits [R]."""
        x0 = self.embedding(features).flatten(start_dim=1)  # [R, d]
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        if self.deep is not None:
            x = torch.cat([x, self.deep(x0)], dim=1)
        return self.head(x)
