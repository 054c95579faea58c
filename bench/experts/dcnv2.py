"""DCN V2 as an expert writes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experts.base import Expert, Features, first_of, rest_of
from rankopt.zoo.dcnv2 import DCNv2, FullRankCross


class ExpertDCNv2(Expert):
    """The context half of every cross layer is affine in the target halves so far, z = [t_0, ..., t_{l-1}]:

        c_l = a + B z,   c_{l+1} = c_0 * (W_cc c_l + W_ct t_l + b) + c_l

    so a and B are computed once per request and the context half is never written. A head reads the last one from its
    own side, which spares the widest product of the recursion. It pays for many candidates: for few, the first layer is
    split and the last one folded into a narrow head.
    """

    def __init__(self, model: DCNv2, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        layers = [layer for layer in model.crosses if isinstance(layer, FullRankCross) and layer.bias_inside]
        if len(layers) != len(model.crosses) or model.deep is not None:
            raise ValueError("expected full-rank cross layers under a stacked head")
        c, t = self.columns(self.at_context), self.columns(self.at_target)
        self.context_width, self.target_width, self.layers = len(c), len(t), len(layers)
        for i, layer in enumerate(layers):
            weight, bias = layer.weight.weight, layer.bias
            self.keep(f"cc{i}", weight[c][:, c])
            self.keep(f"ct{i}", weight[c][:, t])
            self.keep(f"tc{i}", weight[t][:, c])
            self.keep(f"tt{i}", weight[t][:, t].t())
            self.keep(f"bc{i}", bias[c])
            self.keep(f"bt{i}", bias[t])
        head = first_of(model.head)
        self.keep("head_c", head.weight[:, c])
        self.keep("head_t", head.weight[:, t].t())
        self.keep("head_bias", head.bias)
        self.rest = rest_of(model.head) if len(model.head.hidden) else nn.Identity()
        costs = [cost(head.out_features, candidates) for cost in (self.pending_cost, self.split_cost)]
        self.folds = head.out_features < candidates
        self.pending = self.layers == 1 or costs[0] < costs[1]

    def pending_cost(self, head: int, candidates: int) -> int:
        """Multiply-adds where the context half stays pending."""
        c, t = self.context_width, self.target_width
        once = sum(layer * t * c * (t + (c if layer + 1 < self.layers else 0)) for layer in range(self.layers))
        each = sum((layer + 1) * t * t for layer in range(self.layers)) + (self.layers + 1) * t * head
        return once + head * c * (c + self.layers * t) + candidates * each

    def split_cost(self, head: int, candidates: int) -> int:
        """Multiply-adds where only the first layer is split, and the last one folded if that is cheaper."""
        c, t = self.context_width, self.target_width
        last = min(candidates * c * (c + t), head * c * (c + t))
        return last + candidates * (c + t) * (t + (self.layers - 2) * (c + t) + t + head)

    def forward(self, context: Features, target: Features) -> Tensor:
        c0, t0 = self.context_vectors(context).view(-1), self.target_vectors(target).flatten(1)  # [d_c], [N, d_t]
        last = self._pending(c0, t0) if self.pending else self._split(c0, t0)
        return self.rest(last).squeeze(-1)

    def _pending(self, c0: Tensor, t0: Tensor) -> Tensor:
        a, b, t = c0, c0.new_empty(len(c0), 0), t0  # c_l = a + b z
        z = t0[:, :0]
        last = self.layers - 1
        for i in range(self.layers):
            cc, ct, tc, tt = (getattr(self, f"{name}{i}") for name in ("cc", "ct", "tc", "tt"))
            mixed = torch.addmv(getattr(self, f"bt{i}"), tc, a)  # [d_t]
            update = torch.addmm(mixed, t, tt)
            if i:
                update.addmm_(z, (tc @ b).t())
            constant = c0 * torch.addmv(getattr(self, f"bc{i}"), cc, a)
            if i < last:
                linear = torch.cat([cc @ b, ct], dim=1).mul_(c0[:, None]) if i else ct * c0[:, None]
                if i:
                    linear[:, : b.shape[1]] += b
                b = linear
            else:
                scaled = self.head_c * c0  # [H, d_c]
                folded = torch.cat([torch.addmm(self.head_c, scaled, cc) @ b, scaled @ ct], dim=1)  # [H, L*d_t]
            a = a + constant
            z = torch.cat([z, t], dim=1) if i else t
            t = torch.addcmul(t, t0, update)
        hidden = torch.addmm(torch.addmv(self.head_bias, self.head_c, a), t, self.head_t)
        return hidden.addmm_(z, folded.t())

    def _split(self, c0: Tensor, t0: Tensor) -> Tensor:
        c, t = c0.expand(t0.shape[0], -1), t0
        for i in range(self.layers):
            cc, ct, tc, tt = (getattr(self, f"{name}{i}") for name in ("cc", "ct", "tc", "tt"))
            bc, bt = getattr(self, f"bc{i}"), getattr(self, f"bt{i}")
            if i == 0:
                of_t = torch.addmm(torch.addmv(bt, tc, c0), t, tt)
                of_c = torch.addmm(torch.addmv(bc, cc, c0), t, ct.t())
            else:
                of_t = torch.addmm(bt, c, tc.t()).addmm_(t, tt)
                if i + 1 == self.layers and self.folds:
                    scaled = self.head_c * c0  # [H, d_c]
                    once = torch.addmv(self.head_bias, scaled, bc)
                    hidden = torch.addmm(once, c, torch.addmm(self.head_c, scaled, cc).t())
                    return hidden.addmm_(t, (scaled @ ct).t()).addmm_(torch.addcmul(t, t0, of_t), self.head_t)
                of_c = torch.addmm(bc, c, cc.t()).addmm_(t, ct.t())
            c, t = torch.addcmul(c, c0, of_c), torch.addcmul(t, t0, of_t)
        return torch.addmm(self.head_bias, c, self.head_c.t()).addmm_(t, self.head_t)
