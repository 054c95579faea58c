"""MLCC: multi-level compression and crossing; every row generates the weights that cross its own tokens.

Yu et al.: Compress, Cross and Scale: Multi-Level Compression Cross Networks for Efficient Scaling in
Recommender Systems. arXiv:2602.12041. With S tokens X [S, E], H heads and dynamic widths e_0 = E, ..., e_L:

    global compression       g = vec(X) G,  G: SE x (H P),  P = sum_l e_{l-1} e_l
    progressive crossing     h_0 = X,  h_l = h_{l-1} A_l      A_l [e_{l-1}, e_l] cut from g, per head
    local compression        r_s = [h_1; ...; h_L; x_s] L_s   a matrix per token, no bias
    gate (SENet)             r_s <- a_s r_s,  a = sigmoid(W_2 norm(relu(W_1 mean(r) + b_1)) + b_2)
    logit = head(vec(r))

There is no activation between the crossing layers. Inside a token the crossed numbers stand head by head,
inside a head layer by layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class MLCCConfig:
    """`keep` lists the layers whose output goes on, 0 being the token; the last layer's always does."""

    embedding_dim: int = 16
    heads: int = 4
    dynamic: tuple[int, ...] = (4, 1)
    keep: tuple[int, ...] = (0, 1)
    refined: int = 8
    head: tuple[int, ...] = HEAD
    dropout: float = 0.2


class CompressionCrossing(nn.Module):
    """Global compression and progressive crossing of one channel."""

    def __init__(self, tokens: int, width: int, config: MLCCConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.shapes = list(pairwise((width, *config.dynamic)))
        self.sizes = [before * after for before, after in self.shapes]
        self.kept = {layer for layer in config.keep if 0 < layer < len(self.shapes)} | {len(self.shapes)}
        self.out_width = config.heads * sum(config.dynamic[layer - 1] for layer in self.kept)
        self.generator = nn.Parameter(torch.empty(tokens * width, config.heads * sum(self.sizes)))
        nn.init.xavier_normal_(self.generator)

    def forward(self, x: Tensor) -> Tensor:
        """[R, S, E] -> [R, S, out_width]."""
        generated = torch.matmul(x.flatten(start_dim=1), self.generator)  # [R, H*P]
        generated = generated.unflatten(1, (self.heads, -1))  # [R, H, P]
        h = x.unsqueeze(1)  # [R, 1, S, E]
        crossed = []
        for layer, (block, shape) in enumerate(
            zip(generated.split(self.sizes, dim=-1), self.shapes, strict=True), start=1
        ):
            h = torch.matmul(h, block.unflatten(-1, shape))  # [R, H, S, e_l]
            if layer in self.kept:
                crossed.append(h)
        return torch.cat(crossed, dim=-1).transpose(1, 2).flatten(start_dim=2)


class LocalCompression(nn.Module):
    """A matrix of its own for every token."""

    def __init__(self, tokens: int, width: int, refined: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, width, refined))
        nn.init.xavier_normal_(self.weight)

    def forward(self, y: Tensor) -> Tensor:
        """[R, S, width] -> [R, S, refined]."""
        return torch.einsum("rsw,swe->rse", y, self.weight)


class TokenGate(nn.Module):
    """Squeeze and excitation: scales every token by a number that all tokens decide on."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        hidden = max(1, tokens // 2)
        self.squeeze = nn.Linear(tokens, hidden)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.excite = nn.Linear(hidden, tokens)

    def forward(self, r: Tensor) -> Tensor:
        """[R, S, refined] -> the same, scaled."""
        hidden = self.norm(torch.relu(self.squeeze(r.mean(dim=-1))))
        return r * torch.sigmoid(self.excite(hidden)).unsqueeze(-1)


class MLCC(nn.Module):
    def __init__(self, fields: Sequence[Field], config: MLCCConfig) -> None:
        super().__init__()
        tokens = len(fields)
        self.has_raw = 0 in config.keep
        self.embedding = FieldEmbedding(fields, config.embedding_dim)
        self.crossing = CompressionCrossing(tokens, config.embedding_dim, config)
        width = self.crossing.out_width + (config.embedding_dim if self.has_raw else 0)
        self.compression = LocalCompression(tokens, width, config.refined)
        self.gate = TokenGate(tokens)
        self.head = LogitHead(tokens * config.refined, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R] or [R, L]} -> logits [R]."""
        x = self.embedding(features)  # [R, S, E]
        y = self.crossing(x)
        if self.has_raw:
            y = torch.cat([y, x], dim=-1)
        refined = self.gate(self.compression(y))  # [R, S, refined]
        return self.head(refined.flatten(start_dim=1))
