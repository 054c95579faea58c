"""Attention is its parts: a grid of scores, a log-sum-exp merge, a sum over the keys."""

from __future__ import annotations

import math
from functools import partial

import torch
from laws.harness import Case, law_tests
from torch import Tensor, nn
from torch.nn import functional as F

attend = F.scaled_dot_product_attention


def both(c: Tensor, t: Tensor) -> Tensor:
    """[R, 5, 4]"""
    return torch.cat([c, t], 1)


def heads(x: Tensor) -> Tensor:
    """[R, F, 4] -> [R, 2, F, 2]"""
    return x.unflatten(-1, (2, 2)).transpose(1, 2)


Law = partial(Case, "attention.attention")
causal = {"mask": torch.ones(5, 5, dtype=torch.bool).tril()}
additive = {"mask": torch.zeros(5, 5).masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -math.inf)}

CASES = [
    Law(lambda c, t: attend(both(c, t), both(c, t), both(c, t)), never="scaled_dot_product_attention"),
    Law(lambda c, t: attend(t, c, c), never="scaled_dot_product_attention"),
    Law(lambda c, t: attend(heads(both(c, t)), heads(both(c, t)), heads(both(c, t)), scale=0.3)),
    Law(lambda c, t, mask: attend(both(c, t), both(c, t), both(c, t), mask), given=causal),
    Law(lambda c, t, mask: attend(both(c, t), both(c, t), both(c, t), mask), given=additive),
    Law(lambda c, t: attend(t, c, c, (c[..., 0] > 0).unsqueeze(1))),  # some contexts are masked altogether
    Law(lambda c, t: attend(t, both(c, t), both(c, t), (both(c, t)[..., 0] > 9).unsqueeze(1))),  # all of it masked
    Law(lambda c, t: attend(t, t, t), refuses="no part of query, key or value is rank-2"),
    Law(lambda c, t: attend(both(c, t), both(c, t), both(c, t), is_causal=True)),
    Law(lambda c, t: attend(t, c, c, is_causal=True) + attend(c, c, c, is_causal=True)[:, :2], once="_safe_softmax"),
    # as layers spell it
    Case(
        "softmax.softmax",
        lambda c, t, q: ((q(both(c, t)) @ both(c, t).mT / 2).softmax(-1) @ both(c, t)),
        once="exp",
        given={"q": nn.Linear(4, 4)},
    ),
    Law(
        lambda c, t, mha: mha(both(c, t), both(c, t), both(c, t), need_weights=False)[0],
        given={"mha": nn.MultiheadAttention(4, 2, batch_first=True)},
    ),
    Case(
        "softmax.softmax",
        lambda c, t, mha: mha(both(c, t), both(c, t), both(c, t))[0],
        given={"mha": nn.MultiheadAttention(4, 2, batch_first=True)},
    ),
    Case(
        "softmax.softmax",
        lambda c, t, din: ((din(torch.cat([c, c * t[:, :1], c - t[:, :1]], -1)) + 0).softmax(1) * c).sum(1),
        given={"din": nn.Sequential(nn.Linear(12, 4), nn.Sigmoid(), nn.Linear(4, 1))},
    ),
]  # fmt: skip

test_cases = law_tests(CASES)
