"""Pooling a history that belongs to the request: all of it once."""

from __future__ import annotations

import torch
from laws.harness import Like
from spellings.harness import IDS, OVER_HISTORY, STEPS, D, N, U, ids, spelled, spelling_tests
from torch import Tensor, nn

OF_IDS = {"history": ids(STEPS), "target": ids()}
LAYER = D * U + N * D * U


class Pooled(nn.Module):
    """The pooled history beside the target, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(IDS, D, padding_idx=0)
        self.layer = nn.Linear(2 * D, U)

    def beside(self, pooled: Tensor, target: Tensor) -> Tensor:
        return self.layer(torch.cat([pooled, self.table(target)], 1)).relu()


@spelled(inputs=OF_IDS, context=["history"], work=LAYER, once=["embedding"])
class Summed(Pooled):
    """A sum: the padding's row of the table is zero."""

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return self.beside(self.table(history).sum(dim=1), target)


@spelled("embedding", inputs=OF_IDS, context=["history"], work=LAYER, once=["ne"])
@spelled("id", inputs=OF_IDS, context=["history"], work=LAYER, once=["ne"])
class Averaged(Pooled):
    """A sum divided by the number of steps that are none of padding, as their embedding or their id says."""

    def __init__(self, count: str) -> None:
        super().__init__()
        self.count = count

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        x = self.table(history)
        kept = (x.sum(dim=-1) != 0) if self.count == "embedding" else history != 0
        return self.beside(x.sum(dim=1) / (kept.float().sum(-1, keepdim=True) + 1e-12), target)


@spelled("mean", inputs={**OF_IDS, "length": ids(1)}, context=["history", "length"], work=LAYER)
@spelled("max", inputs={**OF_IDS, "length": ids(1)}, context=["history", "length"], work=LAYER)
class ByLength(Pooled):
    """Steps below a length, `arange(L) < length`, tiled over D; the mean of them, or their maximum."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, history: Tensor, target: Tensor, length: Tensor) -> Tensor:
        x = self.table(history)
        kept = (torch.arange(STEPS, dtype=torch.float32) < length.unsqueeze(-1)).permute(0, 2, 1)
        kept = kept.repeat(1, 1, D).float()
        if self.how == "max":
            return self.beside((x - (1 - kept) * 1e9).max(dim=1)[0], target)
        return self.beside((x * kept).sum(dim=1) / (length.float() + 1e-8), target)


@spelled(inputs=OVER_HISTORY, context=["history"], once=["amax"])
class MaximumOfBoth(nn.Module):
    """The maximum over history and target, of which each has a part."""

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return torch.cat([history, target.unsqueeze(1)], 1).amax(1)


@spelled(inputs=OVER_HISTORY, context=["history"], work=2 * D * U + N * D * U)
class Windows(nn.Module):
    """Windows of the history by `segment_reduce`, along the steps moved to axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("windows", torch.tensor([2, STEPS - 2]))
        self.layer = nn.Linear(3 * D, U)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        windows = torch.segment_reduce(history.transpose(0, 1), "sum", lengths=self.windows)  # [2, R, D]
        return self.layer(torch.cat([windows.transpose(0, 1).flatten(1), target], 1)).relu()


@spelled(inputs={"c": Like((STEPS, D)), "t": Like((D,))}, work=LAYER, once=["topk"])
class LargestSteps(nn.Module):
    """The largest of the history, by `topk` and `gather` with an index of the context: once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * D, U)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        places = c.sum(-1).topk(2, dim=1)[1]
        chosen = torch.gather(c, 1, places.unsqueeze(-1).expand(-1, -1, D)).sum(1)
        return self.layer(torch.cat([chosen, t], 1)).relu()


test_spelling = spelling_tests(__name__)
