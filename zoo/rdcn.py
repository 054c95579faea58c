"""rDCN: a cross network in which the context never sees the target.

Tkach: Context Features Are Cheap (the paper on rank-aware decomposition). With c_0 the embeddings of the context
fields and t_0 those of the target fields, side by side, and * element by element:

    c_{l+1} = c_0 * (W^cc_l c_l + b^c_l) + c_l                                     (eq. 20)
    t_{l+1} = t_0 * (W^tc_l c_l + W^tt_l t_l + b^t_l) + t_l                        (eq. 19)
    logit = MLP([c_L; t_L])

Superscripts name the output, then the input: W^tc [d_t, d_c] leads from the context to the target. It is DCN V2 with
the block that leads from the target to the context left out, and another function than DCN V2. Without the context
stream c_l = c_0 throughout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding
from rankopt.zoo.fields import Schema
from rankopt.zoo.mlp import HEAD, LogitHead


@dataclass(frozen=True, slots=True)
class RDCNConfig:
    embedding_dim: int = 16
    layers: int = 3
    context_stream: bool = True
    head: tuple[int, ...] = HEAD
    dropout: float = 0.2


class ContextCross(nn.Module):
    """The layer of the context stream: a cross layer of DCN V2 over the context alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.from_context = nn.Linear(width, width)

    def forward(self, c0: Tensor, c: Tensor) -> Tensor:
        """[R, d_c], [R, d_c] -> [R, d_c]."""
        return c0 * self.from_context(c) + c


class TargetCross(nn.Module):
    """The layer of the target stream, which reads both."""

    def __init__(self, context_width: int, target_width: int) -> None:
        super().__init__()
        self.from_context = nn.Linear(context_width, target_width, bias=False)
        self.from_target = nn.Linear(target_width, target_width)

    def forward(self, t0: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """[R, d_t], [R, d_t], [R, d_c] -> [R, d_t]."""
        return t0 * (self.from_context(c) + self.from_target(t)) + t


class RDCN(nn.Module):
    def __init__(self, schema: Schema, config: RDCNConfig) -> None:
        super().__init__()
        self.context, self.target = schema.places()
        context_width, target_width = (len(places) * config.embedding_dim for places in schema.places())
        self.embedding = FieldEmbedding(schema.fields, config.embedding_dim)
        self.context_crosses = nn.ModuleList(
            ContextCross(context_width) for _ in range(config.layers if config.context_stream else 0)
        )
        self.target_crosses = nn.ModuleList(TargetCross(context_width, target_width) for _ in range(config.layers))
        self.head = LogitHead(context_width + target_width, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        x = self.embedding(features)  # [R, F, D]
        c0, t0 = (x[:, places].flatten(start_dim=1) for places in (self.context, self.target))
        contexts = [c0]  # c_0, c_1, ...
        for cross in self.context_crosses:
            contexts.append(cross(c0, contexts[-1]))
        t = t0
        for layer, cross in enumerate(self.target_crosses):
            t = cross(t0, t, contexts[layer] if self.context_crosses else c0)
        return self.head(torch.cat([contexts[-1], t], dim=1))
