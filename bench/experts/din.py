"""DIN as an expert writes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experts.base import PREFIX, Expert, Features
from rankopt.zoo.din import DIN, Dice


class ExpertDIN(Expert):
    """The first layer of the attention unit reads [t; h; t - h; t * h], which for a given history is one matrix per
    item and a constant. The interest is linear in the weights of the items, and folds into the first layer of the
    head."""

    def __init__(self, model: DIN, context: Sequence[str], candidates: int) -> None:
        super().__init__(model.embedding, context, model.embedding.dim)
        if model.attention.softmax or model.embedding.unknown_action is not None:
            raise ValueError("expected DIN without softmax, and a history of the candidate's fields alone")
        self.of_items = model.embedding.of_items
        self.at_history = [self.target_names.index(field.name) for field in model.embedding.of_target]
        layer, self.dice, *self.unit = model.attention.unit
        t, h, difference, product = layer.weight.chunk(4, dim=1)  # [U, W] each
        self.keep("of_target", (t + difference).t())  # [W, U]
        self.keep("of_item", (h - difference).t())
        self.keep("of_product", product.t())
        self.keep("unit_bias", layer.bias)
        self.unit = nn.Sequential(*(hand_written(module) for module in self.unit))
        self.dice = hand_written(self.dice)
        first, *rest = (module for module in model.head if not isinstance(module, nn.Dropout))
        plain = len(self.at_context) + len(self.at_target)
        self.keep("head_c", first.weight[:, self.columns(self.at_context)].t())
        self.keep("head_t", first.weight[:, self.columns(self.at_target)].t())
        self.keep("head_interest", first.weight[:, plain * self.width :].t())
        self.keep("head_bias", first.bias)
        self.rest = nn.Sequential(*(hand_written(module) for module in rest))

    def forward(self, context: Features, target: Features) -> Tensor:
        c, t = self.context_vectors(context), self.target_vectors(target)
        ids = [context[PREFIX + field.name] for field in self.of_items]
        pairs = zip(self.of_items, ids, strict=True)
        h = torch.cat([self.embedding.tables[field.table](values[0]) for field, values in pairs], dim=1)  # [L, W]
        mask = ids[0] != 0  # [1, L]
        item = t[:, self.at_history].flatten(1) if len(self.at_history) > 1 else t[:, self.at_history[0]]  # [N, W]
        maps = self.of_target.unsqueeze(1) + h.t().unsqueeze(2) * self.of_product.unsqueeze(1)  # [W, L, U]
        constant = torch.addmm(self.unit_bias, h, self.of_item)  # [L, U]
        hidden = torch.addmm(constant.view(-1), item, maps.flatten(1)).view(-1, constant.shape[1])  # [N*L, U]
        weights = self.unit(self.dice(hidden)).view(-1, h.shape[0]).masked_fill_(~mask, 0.0)  # [N, L]
        once = torch.addmm(self.head_bias, c.view(1, -1), self.head_c)
        hidden = torch.addmm(once, t.flatten(1), self.head_t).addmm_(weights, h @ self.head_interest)
        return self.rest(hidden).squeeze(-1)


class QuickDice(nn.Module):
    """s * (alpha + (1 - alpha) * sigmoid(s / deviation - mean / deviation)), in memory that is used again."""

    def __init__(self, dice: Dice) -> None:
        super().__init__()
        norm = dice.norm
        scale = (norm.running_var + norm.eps).rsqrt()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -norm.running_mean * scale)
        self.register_buffer("alpha", dice.alpha.detach())
        self.register_buffer("rest", 1 - dice.alpha.detach())

    def forward(self, s: Tensor) -> Tensor:
        p = torch.addcmul(self.shift, s, self.scale).sigmoid_()
        return torch.addcmul(self.alpha, p, self.rest).mul_(s)


def hand_written(module: nn.Module) -> nn.Module:
    return QuickDice(module) if isinstance(module, Dice) else module
