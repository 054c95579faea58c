"""Ops that treat each row alone run once for the context, and as written for context and target together."""

from __future__ import annotations

import torch
from laws.harness import Case, law_tests
from torch import Tensor, nn
from torch.nn import functional as F


def both(c: Tensor, t: Tensor) -> Tensor:
    return torch.cat([c, t], 1)


PLACES = torch.tensor([[2, 0], [1, 1], [0, 2]])
gru = {"cell": nn.GRU(4, 3, batch_first=True)}
lstm = {"cell": nn.LSTM(4, 3, num_layers=2, bidirectional=True)}
ORDER, STEP = "an order among elements", "a recurrence mixes"

CASES = [
    Case("rowwise.once", lambda c, t: c.topk(2, 1)[0] * t, once="topk"),
    Case("rowwise.once", lambda c, t: c.sort(1)[1][:, :2] + c.sort(2, descending=True)[0][:, :2] * t, once="sort"),
    Case("rowwise.once", lambda c, t: both(c, t).topk(2, 1)[0], refuses=ORDER),
    Case("rowwise.once", lambda c, t: both(c, t).sort(1)[0] + both(c, t).sort(1)[1], refuses=ORDER),
    Case("rowwise.once", lambda c, t: c.sort(0)[0][:, :2] + t, refuses="rows are not kept apart"),
    Case("rowwise.once", lambda c, t: c.gather(1, c.argsort(1))[:, :2] + t, once="gather"),
    Case("rowwise.once", lambda c, t: c.mT.gather(1, c.mT.argsort(1)).mT[:, :2] + t, once="gather"),
    Case("rowwise.once", lambda c, t: c[:, :2].gather(1, t.argsort(1)), refuses="the index differs"),
    Case("rowwise.once", lambda c, t, i: c.gather(0, i[None, :, :1] * 0) + t[:, :1], refuses="rows are not kept apart",
         given={"i": PLACES}, from_rows=1),
    Case("rowwise.once", lambda c, t, cell: cell(c)[0][:, :2] + cell(c)[1].transpose(0, 1) + t[..., :3], once="gru",
         given=gru),
    Case("rowwise.once", lambda c, t, cell: cell(c.transpose(0, 1))[1][0].permute(1, 0, 2)[..., :1] + t[:, :1],
         once="lstm", given=lstm),
    Case("rowwise.once", lambda c, t, cell: cell(both(c, t))[0], refuses=STEP, given=gru, from_rows=1),
    Case("rowwise.once", lambda c, t: F.max_pool1d(c, 2) + t[:, :1, :2], once="max_pool1d"),
    Case("rowwise.once", lambda c, t: F.max_pool1d(both(c, t), 2), refuses="neighbours of", from_rows=1),
    Case("rowwise.extremum_with_place", lambda c, t: c.max(1)[0] + c.min(1)[1] * t[:, 0], once="max"),
    Case("rowwise.extremum_with_place", lambda c, t: both(c, t).max(1)[0], once="amax", never="max"),
    Case("rowwise.extremum_with_place", lambda c, t: both(c, t).min(2, True)[1] + both(c, t).max(1)[1][:, None]),
    Case("rowwise.extremum_with_place", lambda c, t: both(c, t).max(0)[0], refuses="rows are reduced", from_rows=1),
]  # fmt: skip

test_cases = law_tests(CASES)
