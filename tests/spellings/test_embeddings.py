"""Embeddings and the field matrix: where the fields of a row come from."""

from __future__ import annotations

import torch
from spellings.harness import IDS, STEPS, D, K, M, N, U, ids, spelled, spelling_tests
from torch import Tensor, nn

BY_FIELD = {**{f"c{i}": ids() for i in range(K)}, **{f"t{i}": ids() for i in range(M)}}
BY_COLUMN = {name: ids(1) for name in BY_FIELD}
PACKED = {"x": ids(K + M)}
HISTORY = {"history": ids(STEPS), "target": ids()}
NUMBERED = {"arange": "rows are numbered"}
"""The offsets of bags: once they are understood nobody reads them."""
SPLIT = K * D * U + N * M * D * U
"""A linear layer over all fields, the context's part once."""


class Tables(nn.Module):
    """A table per field, and a linear layer over all of them."""

    def __init__(self, fields: int = K + M) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(IDS, D) for _ in range(fields))
        self.layer = nn.Linear(fields * D, U)


@spelled(inputs=BY_FIELD, work=SPLIT)
class Stacked(Tables):
    """An embedding per field, stacked along dim 1: the field axis exists only through a view."""

    def forward(self, **ids: Tensor) -> Tensor:
        x = torch.stack([table(i) for table, i in zip(self.tables, ids.values(), strict=True)], dim=1)
        return self.layer(x.flatten(1)).relu()


@spelled(inputs=BY_FIELD, work=SPLIT)
class Concatenated(Tables):
    """The embeddings side by side, without a field axis."""

    def forward(self, **ids: Tensor) -> Tensor:
        return self.layer(torch.cat([table(i) for table, i in zip(self.tables, ids.values(), strict=True)], -1)).relu()


@spelled(inputs=BY_FIELD, work=SPLIT)
class Unsqueezed(Tables):
    """Each embedding with a dim of one, concatenated along it."""

    def forward(self, **ids: Tensor) -> Tensor:
        x = torch.cat([table(i).unsqueeze(1) for table, i in zip(self.tables, ids.values(), strict=True)], 1)
        return self.layer(x.view(x.size(0), -1)).relu()


@spelled(1, inputs=BY_COLUMN, work=SPLIT)
@spelled(-1, inputs=BY_COLUMN, work=SPLIT)
class ColumnIds(Tables):
    """Ids [R, 1], so that embeddings are [R, 1, D]; concatenated along dim 1 or the last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, **ids: Tensor) -> Tensor:
        x = torch.cat([table(i) for table, i in zip(self.tables, ids.values(), strict=True)], self.dim)
        return self.layer(x.view(x.shape[0], -1)).relu()


@spelled(inputs=PACKED, context=[f"x[:, :{K}]"], work=SPLIT)
class PackedIds(Tables):
    """Ids packed in one input; a slice of all rows is no slice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cat([table(x[:][:, i]) for i, table in enumerate(self.tables)], -1)).relu()


@spelled(
    inputs={"x": ids(K + M + STEPS, dtype=torch.float32)},
    context=[f"x[:, :{K}]", f"x[:, {K + M}:]"],
    work=(K + 1) * D * U + N * M * D * U,
)
class PackedFloatIds(Tables):
    """Float ids, columns cut one by one; those of the history are one wide slice of the same tensor."""

    def __init__(self) -> None:
        super().__init__(K + M + 1)

    def forward(self, x: Tensor) -> Tensor:
        single = [self.tables[i](x[:, i : i + 1].long()) for i in range(K + M)]
        history = self.tables[-1](x[:, K + M :].long()).sum(1, keepdim=True)
        return self.layer(torch.cat([*single, history], -1).flatten(1)).relu()


@spelled(inputs=PACKED, context=[f"x[:, :{K}]"], once=["embedding"])
class FieldAwareOffsets(nn.Module):
    """A vector of each id for every other field, in one table: `id * F + arange(F)`."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(IDS * (K + M), D) for _ in range(K + M))

    def forward(self, x: Tensor) -> Tensor:
        others = torch.arange(K + M)
        looked_up = [table(x[:, i].unsqueeze(1) * (K + M) + others) for i, table in enumerate(self.tables)]
        pairs = [(looked_up[i][:, j] * looked_up[j][:, i]).sum(1) for i in range(K + M) for j in range(i)]
        return torch.stack(pairs, 1).sum(1)


@spelled("sum", inputs=PACKED, context=[f"x[:, :{K}]"], work=SPLIT, opaque=NUMBERED)
@spelled("mean", inputs=PACKED, context=[f"x[:, :{K}]"], work=SPLIT, opaque=NUMBERED)
class Bags(nn.Module):
    """Bags of one id each: columns by `unbind`, offsets `arange(R)`."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(IDS, D, mode=mode) for _ in range(K + M))
        self.layer = nn.Linear((K + M) * D, U)

    def forward(self, x: Tensor) -> Tensor:
        offsets = torch.arange(x.shape[0])
        found = [table(column, offsets) for table, column in zip(self.tables, x.unbind(1), strict=True)]
        return self.layer(torch.cat(found, 1)).relu()


@spelled("sum", inputs=HISTORY, context=["history"], work=D * U + N * D * U, opaque=NUMBERED)
@spelled("mean", inputs=HISTORY, context=["history"], work=D * U + N * D * U, opaque=NUMBERED)
@spelled("max", inputs=HISTORY, context=["history"], work=D * U + N * D * U, opaque=NUMBERED)
class BagOfHistory(nn.Module):
    """A bag per row, of as many ids as there are steps: no offsets."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag, self.table = nn.EmbeddingBag(IDS, D, mode=mode), nn.Embedding(IDS, D)
        self.layer = nn.Linear(2 * D, U)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return self.layer(torch.cat([self.bag(history), self.table(target)], 1)).relu()


@spelled(inputs=HISTORY, context=["history"], work=D * U + N * D * U, opaque=NUMBERED)
class BagByOffsets(nn.Module):
    """A bag per row, flattened: the ids [R * L] with offsets `arange(R) * L`."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.table = nn.EmbeddingBag(IDS, D, mode="sum"), nn.Embedding(IDS, D)
        self.layer = nn.Linear(2 * D, U)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        bag = self.bag(history.reshape(-1), torch.arange(history.shape[0]) * STEPS)
        return self.layer(torch.cat([bag, self.table(target)], 1)).relu()


@spelled(inputs=PACKED, context=[f"x[:, :{K}]"], work=SPLIT)
class KeyMajor(nn.Module):
    """Ids [F * R], a key's rows after those of the key before: rows are the inner axis."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(IDS, D)
        self.layer = nn.Linear((K + M) * D, U)

    def forward(self, x: Tensor) -> Tensor:
        by_key = self.table(x.t().flatten()).view(K + M, -1, D)
        return self.layer(by_key.permute(1, 0, 2).flatten(1)).relu()


@spelled(inputs=PACKED, context=[f"x[:, :{K}]"], refused="read into Python")
class KeyedLengths(Tables):
    """KeyedJaggedTensor: where a key's ids begin is read from lengths, although they are all ones."""

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.ones_like(x.t().flatten())
        ends = lengths.view(K + M, -1).sum(1).cumsum(0)
        flat, begin, found = x.t().flatten(), 0, []
        for table, end in zip(self.tables, ends, strict=True):
            found.append(table(flat[begin : end.item()]))
            begin = end.item()
        return self.layer(torch.cat(found, 1)).relu()


@spelled(
    inputs={"c": ids(K), "history": ids(STEPS), "t": ids(M)},
    context=["c", "history"],
    work=(K + STEPS) * D * U + N * M * D * U,
)
class UnequalLengths(nn.Module):
    """One table for a history [R, L, D] and for fields [R, F, D], concatenated along axes of different length."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(IDS, D)
        self.layer = nn.Linear((K + M + STEPS) * D, U)

    def forward(self, c: Tensor, history: Tensor, t: Tensor) -> Tensor:
        return self.layer(torch.cat([self.table(x) for x in (c, history, t)], 1).flatten(1)).relu()


test_spelling = spelling_tests(__name__)
