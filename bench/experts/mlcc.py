"""MLCC as an expert writes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from experts.base import Expert, Features, first_of, rest_of
from rankopt.zoo.mlcc import MLCC


class ExpertMLCC(Expert):
    """Generated weights are an affine function of the target. All context tokens meet them in one product, which
    comes out token by token, as the matrices of the tokens want it; the gate puts rows back in the order of the head.
    """

    def __init__(self, model: MLCC, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        crossing, shapes = model.crossing, model.crossing.shapes
        if len(shapes) != 2 or crossing.kept != {1, 2} or not model.has_raw:
            raise ValueError("expected two crossing layers, both kept, and the tokens themselves")
        self.heads, (self.middle, self.last) = crossing.heads, shapes[1]
        c, t = self.columns(self.at_context), self.columns(self.at_target)
        generator = crossing.generator.unflatten(1, (self.heads, -1))  # [S*E, H, P]
        first, second = generator.split(crossing.sizes, dim=2)
        first = first.unflatten(2, shapes[0]).transpose(2, 3)  # [S*E, H, e, E]: E innermost
        second = second.unflatten(2, shapes[1]).transpose(2, 3)  # [S*E, H, f, e]
        self.first_size = first[0].numel()
        ordered = torch.cat([first.flatten(1), second.flatten(1)], dim=1)
        self.keep("generator_c", ordered[c])
        self.keep("generator_t", ordered[t])
        crossed = model.compression.weight[:, : crossing.out_width].unflatten(1, (self.heads, -1))
        for name, at in (("c", self.at_context), ("t", self.at_target)):
            self.keep(f"raw_{name}", model.compression.weight[at, crossing.out_width :])
            self.keep(f"one_{name}", crossed[at, :, : self.middle].flatten(1, 2))  # [S, H*e, refined]
            self.keep(f"two_{name}", crossed[at, :, self.middle :].flatten(1, 2))  # [S, H*f, refined]
        order = torch.cat([self.at_context, self.at_target])
        gate = model.gate
        self.keep("squeeze", gate.squeeze.weight[:, order].t() / model.compression.weight.shape[2])
        self.keep("squeeze_bias", gate.squeeze.bias)
        self.keep("excite", gate.excite.weight[order].t())
        self.keep("excite_bias", gate.excite.bias[order])
        self.eps = gate.norm.eps
        layer = first_of(model.head)
        refined = model.compression.weight.shape[2]
        self.keep("head", layer.weight.unflatten(1, (-1, refined))[:, order].flatten(1).t())
        self.keep("head_bias", layer.bias)
        self.rest = rest_of(model.head)

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)  # [K, E], [N, M, E]
        count = t.shape[0]
        generated = torch.addmm(c.view(1, -1) @ self.generator_c, t.flatten(1), self.generator_t)
        first = generated[:, : self.first_size].view(count, -1, c.shape[1])  # [N, H*e, E]
        second = generated[:, self.first_size :].view(count, self.heads, self.last, self.middle)  # [N, H, f, e]

        one_c = c @ first.reshape(-1, c.shape[1]).t()  # [K, N*H*e]
        one_t = torch.bmm(t, first.transpose(1, 2)).transpose(0, 1)  # [M, N, H*e]
        tokens = torch.cat([one_c.view(c.shape[0], count, -1), one_t])  # [S, N, H*e]
        crossed = self._second(tokens, second)
        k = c.shape[0]
        raw_c = torch.bmm(c.unsqueeze(1), self.raw_c)  # [K, 1, refined]
        raw_t = torch.bmm(t.transpose(0, 1), self.raw_t)  # [M, N, refined]
        refined = torch.cat(
            [
                torch.baddbmm(raw_c, tokens[:k], self.one_c).baddbmm_(crossed[:k], self.two_c),
                raw_t.baddbmm_(tokens[k:], self.one_t).baddbmm_(crossed[k:], self.two_t),
            ]
        )  # [S, N, refined]
        hidden = torch.relu(torch.addmm(self.squeeze_bias, refined.sum(2).t(), self.squeeze))
        hidden = functional.layer_norm(hidden, hidden.shape[1:], eps=self.eps)
        gate = torch.addmm(self.excite_bias, hidden, self.excite).sigmoid_()  # [N, S]
        rows = torch.mul(gate.unsqueeze(2), refined.transpose(0, 1)).reshape(count, -1)
        return self.rest(torch.addmm(self.head_bias, rows, self.head)).squeeze(-1)

    def _second(self, tokens: Tensor, second: Tensor) -> Tensor:
        """[S, N, H*e], [N, H, f, e] -> [S, N, H*f]"""
        wide = tokens.view(*tokens.shape[:2], self.heads, 1, self.middle)
        return (wide * second).sum(-1).flatten(2)
