"""DLRM as an expert writes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experts.base import Expert, Features, first_of, rest_of
from rankopt.zoo.dlrm import DLRM


class ExpertDLRM(Expert):
    """Dots of context fields once; of a target field with all context fields one product; no triangle is gathered:
    weights of the first layer stand where the dots are, zero where one is not read."""

    def __init__(self, model: DLRM, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        layer = first_of(model.top)
        fields = len(self.at_context) + len(self.at_target)
        full = layer.weight.new_zeros(fields, fields, layer.out_features)
        rows, columns = model.pairs
        full[rows, columns] = layer.weight.detach().t()
        both = full + full.transpose(0, 1)  # [F, F, H], a pair at either of its places
        c, t = self.at_context, self.at_target
        self.keep("once", full[c][:, c].flatten(0, 1))  # [K*K, H]
        self.keep("mixed", both[t][:, c].flatten(0, 1))  # [M*K, H]
        self.keep("own", full[t][:, t].flatten(0, 1))  # [M*M, H]
        self.keep("bias", layer.bias)
        self.rest = rest_of(model.top)

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)
        once = torch.addmm(self.bias, (c @ c.t()).reshape(1, -1), self.once)  # [1, H]
        mixed = (t.flatten(0, 1) @ c.t()).view(t.shape[0], -1)  # [N, M*K]
        own = torch.bmm(t, t.transpose(1, 2)).flatten(1)  # [N, M*M]
        hidden = torch.addmm(once, mixed, self.mixed).addmm_(own, self.own)
        return self.rest(hidden).squeeze(-1)
