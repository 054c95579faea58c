"""MC-MLCC: MLCC on several channels, each a slice of the embedding with a generator of its own.

Yu et al.: Compress, Cross and Scale: Multi-Level Compression Cross Networks for Efficient Scaling in
Recommender Systems. arXiv:2602.12041, the multi-channel variant. The embedding of width Z E is cut into Z
blocks X^z [S, E]; each is crossed alone, and the local compression joins them:

    y_s = [cross^1(X^1)_s; ...; cross^Z(X^Z)_s; x_s]       the token itself once, in its whole width
    r_s = y_s L_s,  then gate and head as in MLCC
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Field
from rankopt.zoo.mlcc import CompressionCrossing, LocalCompression, MLCCConfig, TokenGate
from rankopt.zoo.mlp import LogitHead


@dataclass(frozen=True, slots=True)
class MCMLCCConfig:
    """`channel` is the MLCC of one channel; its `embedding_dim` is the width E of the channel, not Z E."""

    channels: int = 2
    channel: MLCCConfig = field(default_factory=MLCCConfig)


class MCMLCC(nn.Module):
    def __init__(self, fields: Sequence[Field], config: MCMLCCConfig) -> None:
        super().__init__()
        tokens, channel = len(fields), config.channel
        total = config.channels * channel.embedding_dim
        self.channel_width = channel.embedding_dim
        self.has_raw = 0 in channel.keep
        self.embedding = FieldEmbedding(fields, total)
        crossings = [CompressionCrossing(tokens, channel.embedding_dim, channel) for _ in range(config.channels)]
        self.crossings = nn.ModuleList(crossings)
        width = sum(crossing.out_width for crossing in crossings) + (total if self.has_raw else 0)
        self.compression = LocalCompression(tokens, width, channel.refined)
        self.gate = TokenGate(tokens)
        self.head = LogitHead(tokens * channel.refined, channel.head, channel.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R] or [R, L]} -> logits [R]."""
        x = self.embedding(features)  # [R, S, Z*E]
        channels = x.split(self.channel_width, dim=-1)
        crossed = [cross(channel) for cross, channel in zip(self.crossings, channels, strict=True)]
        if self.has_raw:
            crossed.append(x)
        refined = self.gate(self.compression(torch.cat(crossed, dim=-1)))  # [R, S, refined]
        return self.head(refined.flatten(start_dim=1))
