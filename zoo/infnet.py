"""INFNet: fields, behaviours and tasks exchange what they know through a few proxies of each group.

INFNet: A Task-aware Information Flow Network for Large-Scale Recommendation Systems. arXiv:2508.11565, the first
version. Three groups of tokens of width d: fields C [M, d], behaviours S [L, d], and the tasks T [n, d], which are
learned. Each has proxies: C~ = reshape(MLP(vec(C))), S~ = one per kind of behaviour, the sum over its items of a
shared projection, T~ = learned. With

    CA(Q, X) = softmax(Q W_Q (X W_K)^T / sqrt(d)) X W_V
    PGU(X, X~) = X * sigmoid(MLP(vec(X~)))                 one gate per channel, the same for all tokens

a block is

    C~' = CA(C~, S) + CA(C~, T),   S~' = CA(S~, C) + CA(S~, T),   T~' = CA(T~, C) + CA(T~, S)
    C' = PGU(C, C~'),   S' = PGU(S, S~'),   T' = PGU(CA(T, C) + CA(T, S), T~')
    logit = MLP(vec(T_L))

with other weights in every CA. The last block updates the tasks only, as nothing reads the others. Each history of the
row is a kind of behaviour with one token per item, its padding masked; without a history the other two groups are
left. There is one task, and it has `task_tokens` tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding, is_item
from rankopt.zoo.fields import Field
from rankopt.zoo.mlp import LogitHead

FIELDS, BEHAVIOURS, TASKS = "fields", "behaviours", "tasks"
MASKED = -1e9
"""Score of padding; finite, so that a row without any behaviour gets no NaN."""

Groups = dict[str, Tensor]
"""Tokens [R, n, d] by group."""


@dataclass(frozen=True, slots=True)
class INFNetConfig:
    """`field_proxies` and `task_proxies` are how many C~ and T~ there are."""

    embedding_dim: int = 16
    blocks: int = 2
    field_proxies: int = 4
    task_tokens: int = 2
    task_proxies: int = 2
    proxy_hidden: int = 64
    gate_hidden: int = 32
    head: tuple[int, ...] = (64, 32)
    dropout: float = 0.2


class CrossAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, queries: Tensor, x: Tensor, present: Tensor | None) -> Tensor:
        """[R, q, d], [R, n, d], [R, n] or None where all are -> [R, q, d]."""
        scores = torch.bmm(self.query(queries), self.key(x).transpose(1, 2)) * self.scale
        if present is not None:
            scores = scores.masked_fill(~present.unsqueeze(1), MASKED)
        return torch.bmm(scores.softmax(dim=-1), self.value(x))


class Collector(nn.Module):
    """Sum of one cross attention per group that is read."""

    def __init__(self, dim: int, sources: Sequence[str]) -> None:
        super().__init__()
        self.attentions = nn.ModuleDict({source: CrossAttention(dim) for source in sources})

    def forward(self, queries: Tensor, tokens: Groups, present: Tensor | None) -> Tensor:
        """[R, q, d] -> [R, q, d]; `present` masks the behaviours."""
        collected = [
            attention(queries, tokens[source], present if source == BEHAVIOURS else None)
            for source, attention in self.attentions.items()
        ]
        return torch.stack(collected, dim=0).sum(dim=0)


class ProxyGate(nn.Module):
    def __init__(self, proxies: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(proxies * dim, hidden), nn.ReLU(), nn.Linear(hidden, dim), nn.Sigmoid())

    def forward(self, x: Tensor, proxies: Tensor) -> Tensor:
        """[R, n, d], [R, q, d] -> [R, n, d]."""
        return x * self.layers(proxies.flatten(start_dim=1)).unsqueeze(1)


class Block(nn.Module):
    def __init__(self, proxies: dict[str, int], updated: Sequence[str], config: INFNetConfig) -> None:
        super().__init__()
        dim = config.embedding_dim

        def others(group: str) -> list[str]:
            return [other for other in proxies if other != group]

        self.proxies = nn.ModuleDict({group: Collector(dim, others(group)) for group in updated})
        self.tasks = Collector(dim, others(TASKS))
        self.gates = nn.ModuleDict({group: ProxyGate(proxies[group], dim, config.gate_hidden) for group in updated})

    def forward(self, tokens: Groups, proxies: Groups, present: Tensor | None) -> tuple[Groups, Groups]:
        """The tokens and the proxies after this block; groups that it does not update are left out."""
        collected = {group: collect(proxies[group], tokens, present) for group, collect in self.proxies.items()}
        told = tokens | {TASKS: self.tasks(tokens[TASKS], tokens, present)}
        return {group: gate(told[group], collected[group]) for group, gate in self.gates.items()}, collected


class INFNet(nn.Module):
    def __init__(self, fields: Sequence[Field], config: INFNetConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.dim = dim
        self.plain = [field for field in fields if not field.is_history]
        self.histories = [field for field in fields if field.is_history]
        self.embedding = FieldEmbedding(fields, dim)
        self.field_proxies = nn.Sequential(
            nn.Linear(len(self.plain) * dim, config.proxy_hidden),
            nn.ReLU(),
            nn.Linear(config.proxy_hidden, config.field_proxies * dim),
        )
        self.item_projection = nn.Linear(dim, dim, bias=False) if self.histories else None
        self.task_tokens = nn.Parameter(torch.empty(config.task_tokens, dim))
        self.task_proxies = nn.Parameter(torch.empty(config.task_proxies, dim))
        for tokens in (self.task_tokens, self.task_proxies):
            nn.init.normal_(tokens, std=dim**-0.5)
        proxies = {FIELDS: config.field_proxies, BEHAVIOURS: len(self.histories), TASKS: config.task_proxies}
        proxies = {group: count for group, count in proxies.items() if count}
        updated = [list(proxies)] * (config.blocks - 1) + [[TASKS]]
        self.blocks = nn.ModuleList(Block(proxies, groups, config) for groups in updated)
        self.head = LogitHead(config.task_tokens * dim, config.head, config.dropout)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> logits [R]."""
        tokens, proxies, present = self.groups(features)
        for block in self.blocks:
            tokens, proxies = block(tokens, proxies, present)
        return self.head(tokens[TASKS].flatten(start_dim=1))

    def groups(self, features: dict[str, Tensor]) -> tuple[Groups, Groups, Tensor | None]:
        """Tokens and proxies before the first block, and which behaviours are no padding [R, L]."""
        look_up = self.embedding.look_up
        fields = torch.stack([look_up(field, features) for field in self.plain], dim=1)  # [R, M, d]
        rows = fields.shape[0]
        tokens = {FIELDS: fields, TASKS: self.task_tokens.expand(rows, -1, -1)}
        proxies = {
            FIELDS: self.field_proxies(fields.flatten(start_dim=1)).unflatten(1, (-1, self.dim)),
            TASKS: self.task_proxies.expand(rows, -1, -1),
        }
        if self.item_projection is None:
            return tokens, proxies, None
        masks = [is_item(field, features) for field in self.histories]
        items = [
            look_up(field, features) * mask.unsqueeze(-1) for field, mask in zip(self.histories, masks, strict=True)
        ]
        tokens[BEHAVIOURS] = torch.cat(items, dim=1)  # [R, L, d]
        proxies[BEHAVIOURS] = torch.stack([self.item_projection(item).sum(dim=1) for item in items], dim=1)
        return tokens, proxies, torch.cat(masks, dim=1)
