"""Gathers: constant places keep context and target apart; lookups happen once per request where the ids allow."""

from __future__ import annotations

from functools import partial

import torch
from laws.harness import Case, Like, law_tests
from torch import Tensor, nn
from torch.nn import functional as F

from rankopt.expressions import Stage


def both(c: Tensor, t: Tensor) -> Tensor:
    """Context fields, target fields, context fields: [R, 6, 4]."""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


Exact = partial(Case, exact=True)
PAIRS = torch.tensor([[i, j] for i in range(6) for j in range(i)]).T.contiguous()
Rows = partial(Exact, from_rows=1)
PLACES = {"i": torch.tensor([5, 0, 2, 2])}
first_order = {"table": nn.Embedding(8, 1)}
table = {"table": nn.Embedding(8, 4)}
offsets = {"table": nn.Embedding(40, 4), "offsets": torch.arange(5) * 8}
BAG = torch.ops.aten.embedding_bag.default


def bags(mode: str, padding: int | None = None) -> nn.Module:
    return nn.EmbeddingBag(8, 4, mode=mode, padding_idx=padding)


def numbers(x: Tensor) -> Tensor:
    """The number of each row."""
    return torch.arange(x.shape[0])


ids = partial(Exact, "gather.embedding", c=Like((3,), high=8), t=Like((2,), high=8))
Bag = partial(Case, c=Like((3,), high=8), t=Like((2,), high=8), from_rows=1)
bag = partial(Bag, "gather.embedding_bag_with_padding", given={"table": bags("sum")})
plain = partial(Bag, "gather.embedding_bag", given=table)

CASES = [
    Exact("gather.select", lambda c, t: both(c, t)[:, 2] + both(c, t)[:, -1]),
    Exact("gather.select", lambda c, t: both(c, t)[0], refuses="a row is selected", from_rows=1),
    Exact("gather.slice_", lambda c, t: both(c, t)[:, 1:5]),
    Exact("gather.slice_", lambda c, t: both(c, t)[:, ::2, 1:3]),
    Exact("gather.slice_", lambda c, t: both(c, t).flatten(1)[:, 3:22:5]),
    Exact("gather.slice_", lambda c, t: torch.ops.aten.slice(both(c, t), 0, 0, 2**63 - 1)[:, :9, -2:]),
    Exact("gather.slice_", lambda c, t: both(c, t)[1:], refuses="rows are sliced", from_rows=2),
    Exact("gather.narrow", lambda c, t: both(c, t).narrow(1, 1, 3)),
    Exact("gather.narrow", lambda c, t: both(c, t).narrow(0, 0, 1), refuses="rows are sliced", from_rows=1),
    Exact("gather.index_select", lambda c, t, i: both(c, t).index_select(1, i), given=PLACES),
    Rows("gather.index_select", lambda c, t: t.index_select(1, (c[0, :, 0] > 9).long()), refuses="not a constant"),
    Exact("gather.index", lambda c, t: both(c, t)[:, [4, 1, 1]]),
    Exact("gather.index", lambda c, t: both(c, t)[:, [[0, 1], [3, 5]]]),
    Case("gather.index", lambda c, t: torch.bmm(both(c, t), both(c, t).mT)[:, PAIRS[0], PAIRS[1]]),
    Exact("gather.index", lambda c, t: c.view(-1, 12)[:, [0]] + t[:, 0, [3]]),
    Exact("gather.index", lambda c, t: both(c, t)[torch.arange(t.shape[0])].flatten(1)),
    Exact("gather.index", lambda c, t: both(c, t)[torch.ops.aten.arange.start_step(0, t.shape[0])].flatten(1)),
    Exact("gather.index", lambda c, t: both(c, t)[torch.arange(t.shape[0]).flip(0)],
          refuses="not a constant", from_rows=1),
    Exact("gather.index", lambda c, t: both(c, t)[[0]], refuses="rows are selected", from_rows=1),
    Exact("gather.index", lambda c, t: both(c, t)[:, :, None][:, [0, 2], :, [1, 3]], refuses="not neighbours"),
    # two gathers by an index kept as a parameter, as FwFM, AFM and FiBiNET store it
    Exact(
        "gather.index_select",
        lambda c, t, i: both(c, t).index_select(1, i[0]) * both(c, t).index_select(1, i[1]),
        once="mul",
        given={"i": nn.Parameter(PAIRS, requires_grad=False)},
    ),
    # a triangle by a mask that is constant
    Case(
        "gather.index_select",
        lambda c, t, m: torch.masked_select(torch.bmm(both(c, t), both(c, t).mT), m).view(-1, 15),
        given={"m": torch.ones(6, 6, dtype=torch.bool).triu(1)},
        from_rows=1,
    ),
]  # fmt: skip

LOOKUPS = [
    ids(lambda c, t, table: table(torch.cat([c, t], 1)), once="embedding", given=table),
    ids(lambda c, t, table: table(c).sum(1) + table(t[:, 0]), once="embedding", given=table, exact=False),
    ids(lambda c, t, table, offsets: table(torch.cat([t, c], 1) + offsets), once="embedding", given=offsets),
    ids(lambda c, t, table: table(torch.cat([t, c], 1)).sum(1), once="embedding", given=first_order, exact=False),
    ids(lambda c, t, table: F.embedding(torch.cat([c, t], 1).int(), table.weight, 0), once="embedding", given=table),
    ids(lambda c, t: F.embedding(c * 0, t.float()), refuses="the table has rows", from_rows=1),
    # bags: a column of ids each, or as many ids per row as there are columns
    bag(lambda c, t, table: table(c[:, 0], numbers(c)) + table(t[:, 0], numbers(t)), once="embedding"),
    bag(lambda c, t, table: table(torch.cat([c, t], 1)), once="embedding"),
    bag(lambda c, t, table: table(torch.cat([c, t], 1)), once="embedding", given={"table": bags("mean")}),
    bag(lambda c, t, table: table(torch.cat([c, t], 1)), once="embedding", given={"table": bags("max")}),
    bag(lambda c, t, table: table(c.flatten(), numbers(c) * 3) * table(t)),
    bag(lambda c, t, table: table(t, per_sample_weights=t * 0.5) + table(c)),
    bag(lambda c, t, table: table(t.flatten(), numbers(t)), refuses="bags whose sizes"),
    bag(lambda c, t, table: table(t), refuses="bags with padding", given={"table": bags("sum", 0)}),
    plain(lambda c, t, table: BAG(table.weight, t.flatten(), numbers(t) * 2)[0]),
    plain(lambda c, t, table: BAG(table.weight, t.flatten(), numbers(t))[0], refuses="bags whose sizes"),
]  # fmt: skip

test_cases = law_tests([*CASES, *LOOKUPS])


def test_context_ids_are_looked_up_once_per_request() -> None:
    """Neither the table nor the rows of the context are repeated for the candidates."""
    from laws.harness import Case as _Case
    from laws.harness import calls, exprs_of, group_of

    case = _Case(
        "gather.embedding",
        lambda c, t, e: e(torch.cat([c, t], 1)),
        Like((3,), 8),
        Like((2,), 8),
        given={"e": nn.Embedding(8, 4)},
    )
    lookups = calls(exprs_of(group_of((case,)).plans["full"], 0), "embedding")
    assert [(e.stage, e.dims[0]) for e in lookups if e.stage is Stage.CONTEXT] == [(Stage.CONTEXT, 3)]
