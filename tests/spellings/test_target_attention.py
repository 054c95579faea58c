"""Target attention: DIN and its relatives, and retrieval from a long history."""

from __future__ import annotations

import torch
from spellings.harness import IDS, OVER_HISTORY, STEPS, D, N, U, ids, mask, spelled, spelling_tests
from torch import Tensor, nn

MASKED = {**OVER_HISTORY, "kept": mask(STEPS)}
CONTEXT = ["history", "kept"]
UNITS = 2 * STEPS * D * U + N * (D * U + STEPS * (D * U + U) + STEPS * D)
"""[t, h, t - h, t h] through a layer of U units, a score, and a weighted sum: h and t h by one matrix per step."""


class Dice(nn.Module):
    """p x + (1 - p) a x, p = sigmoid(norm(x)), by batch norm [R * L, n], or by mean and deviation over the units."""

    def __init__(self, over: str) -> None:
        super().__init__()
        self.over = over
        self.alpha = nn.Parameter(torch.randn(U))
        self.norm = nn.BatchNorm1d(U, affine=False, eps=1e-8)
        self.norm.running_mean.normal_()

    def forward(self, x: Tensor) -> Tensor:
        if self.over == "rows":
            p = self.norm(x.flatten(0, 1)).view_as(x).sigmoid()
        elif self.over == "permuted":
            p = self.norm(x.permute(0, 2, 1)).permute(0, 2, 1).sigmoid()
        else:
            mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
            p = ((x - mean) / (variance + 1e-8).sqrt()).sigmoid()
        return p * x + (1 - p) * self.alpha * x


@spelled("rows", "mul", inputs=MASKED, context=CONTEXT, work=UNITS)
@spelled("permuted", "where", inputs=MASKED, context=CONTEXT, work=UNITS)
@spelled("units", "bmm", inputs=MASKED, context=CONTEXT, work=UNITS)
class Interest(nn.Module):
    """DIN: rows and steps folded, Dice in three forms; masked by a product or by `where`, pooled by a sum or `bmm`."""

    def __init__(self, over: str, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.dice, self.last = nn.Linear(4 * D, U), Dice(over), nn.Linear(U, 1)

    def forward(self, history: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        item = target.unsqueeze(1).expand(-1, STEPS, -1)
        x = torch.cat([item, history, item - history, item * history], dim=-1).view(-1, 4 * D)
        scores = self.last(self.dice(self.first(x).view(-1, STEPS, U)).reshape(-1, U)).view(-1, STEPS)
        if self.how == "mul":
            return ((scores * kept.float()).unsqueeze(-1) * history).sum(dim=1)
        if self.how == "where":
            scores = torch.where(kept, scores, torch.ones_like(scores) * (-(2**32) + 1)).softmax(dim=-1)
            return (scores.unsqueeze(-1) * history).sum(dim=1)
        return torch.bmm(scores.unsqueeze(1), history).squeeze(1)


@spelled(inputs={"x": ids(STEPS + 1)}, context=[f"x[:, :{STEPS}]"], work=STEPS * D * U + N * (D * U + STEPS * (U + D)))
class OneTable(nn.Module):
    """History and target looked up together, as ids [R * (L + 1)], and told apart along axis 1."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(IDS, D)
        self.layer, self.last = nn.Linear(2 * D, U), nn.Linear(U, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = self.table(x.flatten()).view(-1, STEPS + 1, D)
        target, history = both.select(1, -1), both[:, 0:-1]
        hidden = self.layer(torch.cat([target.unsqueeze(1).expand(-1, STEPS, -1), history], -1)).relu()
        return (self.last(hidden).softmax(1) * history).sum(1)


@spelled(
    inputs=OVER_HISTORY,
    context=["history"],
    work=STEPS * D * U + N * (D * U + STEPS * U),
    opaque={"topk": "an order among elements", "sort": "an order among elements", "gather": "index differs"},
)
class Retrieved(nn.Module):
    """ETA, SIM: the steps nearest to the target, in their order, gathered from the history."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(D, U) for _ in range(2))

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        keys = self.maps[0](history)
        scores = (keys * self.maps[1](target).unsqueeze(1)).sum(-1)
        places = scores.topk(3, dim=1, largest=True, sorted=True)[1].sort(-1)[0]
        return torch.gather(history, 1, places.unsqueeze(-1).expand(-1, -1, D)).tanh().sum(1)


test_spelling = spelling_tests(__name__)
