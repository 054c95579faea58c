"""AutoInt as an expert writes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experts.base import Expert, Features
from rankopt.zoo.autoint import AutoInt, InteractingLayer


class ExpertAutoInt(Expert):
    """For a context field as query, all context keys together are one more key: its score is the logarithm of their
    summed exponentials, its value their mean under attention, both known per request. Scores against context fields
    are linear in the target vectors, so one product gives them together with queries, keys and values. Later layers
    see the candidate in every field and stay as they are."""

    def __init__(self, model: AutoInt, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        if model.deep is not None:
            raise ValueError("expected AutoInt without a parallel perceptron")
        first, *later = model.layers
        assert isinstance(first, InteractingLayer)
        self.heads, self.scale = first.heads, first.scale
        self.first = first
        self.later = nn.Sequential(*later)
        out = first.query.out_features
        self.size = out // first.heads
        weights = [layer.weight for layer in (first.query, first.key, first.value)]
        if isinstance(first.residual, nn.Linear):
            weights.append(first.residual.weight)
        self.keep("maps", torch.cat(weights).t())  # [D, 3*H*d or 4*H*d]
        self.keep("query", first.query.weight.view(self.heads, self.size, -1) * self.scale)
        self.keep("key", first.key.weight.view(self.heads, self.size, -1) * self.scale)
        places = torch.cat([self.at_context, self.at_target])
        weight = model.output.weight.view(len(places), out)[places]
        self.keep("output", weight.flatten()[:, None])
        self.bias = model.output.bias

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)
        y_c, y_t = self._first(c, t)
        if len(self.later):
            return torch.addmm(self.bias, self.later(torch.cat([y_c, y_t], 1)).flatten(1), self.output).squeeze(-1)
        split = y_c.shape[1] * y_c.shape[2]
        logit = torch.addmm(self.bias, y_c.flatten(1), self.output[:split])
        return logit.addmm_(y_t.flatten(1), self.output[split:]).squeeze(-1)

    def _first(self, c: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """[K, D], [N, M, D] -> [N, K, H*d], [N, M, H*d]"""
        count, m, k, h, d = t.shape[0], t.shape[1], c.shape[0], self.heads, self.size
        q_c, k_c, v_c, *r_c = (c @ self.maps).split(h * d, dim=1)
        q_c, k_c, v_c = (x.view(k, h, d).transpose(0, 1) for x in (q_c, k_c, v_c))  # [H, K, d]
        scores = q_c @ k_c.transpose(1, 2) * self.scale
        total = scores.logsumexp(2)  # [H, K]
        mean = torch.softmax(scores, 2) @ v_c  # [H, K, d]
        of_queries = (q_c @ self.key).flatten(0, 1)  # [H*K, D]: their scores are <.., t>
        of_keys = (k_c @ self.query).flatten(0, 1)
        everything = t.flatten(0, 1) @ torch.cat([of_queries.t(), of_keys.t(), self.maps], dim=1)
        ct, tc, q, key, v, *r_t = everything.view(count, m, -1).split(
            [h * k, h * k] + [h * d] * (self.maps.shape[1] // (h * d)), 2
        )

        weights = torch.softmax(torch.cat([total.view(1, 1, -1).expand(count, 1, -1), ct], 1), 1)  # [N, 1+M, H*K]
        y_c = everything.new_empty(count, k, h * d)
        y_t = everything.new_empty(count, m, h * d)
        for i in range(h):
            head = slice(i * d, (i + 1) * d)
            shares = weights[:, :, i * k : (i + 1) * k]  # [N, 1+M, K]
            values = v[:, :, head]
            shared = shares[:, 0, :, None] * mean[i]
            y_c[:, :, head] = shared.baddbmm_(shares[:, 1:].transpose(1, 2), values)
            own = torch.bmm(q[:, :, head], key[:, :, head].transpose(1, 2))
            own = own * self.scale if self.scale != 1.0 else own
            mine = torch.softmax(torch.cat([tc[:, :, i * k : (i + 1) * k], own], 2), 2)  # [N, M, K+M]
            y_t[:, :, head] = (mine[:, :, :k] @ v_c[i]).baddbmm_(mine[:, :, k:], values)
        return y_c.add_(r_c[0] if r_c else c).relu_(), y_t.add_(r_t[0] if r_t else t).relu_()
