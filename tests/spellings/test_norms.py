"""Norms, and recurrent cells."""

from __future__ import annotations

import torch
from spellings.harness import OVER_HISTORY, D, F, K, M, N, U, fields, spelled, spelling_tests
from torch import Tensor, nn

SIZE = F * D
SPLIT = K * D * U + N * M * D * U


@spelled("flat", work=SPLIT)
@spelled("folded", work=SPLIT)
@spelled("channels", work=SPLIT)
class BatchNorm(nn.Module):
    """Batch norm on [R, n], on rows folded with fields [R * F, n], and on [R, F, D] where a field is a channel."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.norm = nn.BatchNorm1d({"flat": SIZE, "folded": D, "channels": F}[how])
        self.norm.running_mean.normal_()
        self.layer = nn.Linear(SIZE, U)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        given = {"flat": x.flatten(1), "folded": x.reshape(-1, D), "channels": x}[self.how]
        return self.layer(self.norm(given).relu().view(-1, SIZE)).relu()


@spelled("width", work=SPLIT)
@spelled("row", work=SPLIT + N * 0)
@spelled("chunks", work=SPLIT)
class LayerNorm(nn.Module):
    """Layer norm over D, over all of a row (whose moments need all fields), or over each field's chunk."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        sizes = {"width": [D], "row": [SIZE], "chunks": [D] * F}[how]
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes)
        self.layer = nn.Linear(SIZE, U)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        if self.how == "width":
            x = self.norms[0](x).flatten(1)
        elif self.how == "row":
            x = self.norms[0](x.flatten(1))
        else:
            parts = x.flatten(1).split(D, dim=1)
            x = torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)], dim=1)
        return self.layer(x).tanh()


@spelled(work=6 * K * D * D + N * 6 * M * D * D)
class CellOfFields(nn.Module):
    """FiGNN: nn.GRUCell on rows folded with fields, [R * F, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(D, D)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        return self.cell(x.sigmoid().view(-1, D), x.reshape(-1, D)).view(-1, F, D)


@spelled("gru", work=3 * D * D + N * (6 * D * D))
@spelled("lstm", work=4 * D * D + N * (8 * D * D))
class CellOfBoth(nn.Module):
    """A cell whose input is the target and whose state is the context's: the state's product is once."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.cell = nn.GRUCell(D, D) if kind == "gru" else nn.LSTMCell(D, D)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        if self.kind == "gru":
            return self.cell(t[:, 0], c[:, 0])
        h, state = self.cell(t[:, 0], (c[:, 0], c[:, 1]))
        return torch.cat([h, state], 1)


@spelled(inputs=OVER_HISTORY, context=["history"], once=["gru"], work=N * D * U + D * U)
class RecurrentHistory(nn.Module):
    """nn.GRU over a history of the request."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)
        self.layer = nn.Linear(2 * D, U)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return self.layer(torch.cat([self.gru(history)[1].squeeze(0), target], 1)).relu()


@spelled(inputs=OVER_HISTORY, context=["history"], opaque={"gru": "a recurrence mixes"})
class RecurrentTarget(nn.Module):
    """nn.GRU over a history to which the target is appended."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, history: Tensor, target: Tensor) -> Tensor:
        return self.gru(torch.cat([history, target.unsqueeze(1)], 1))[0][:, -1]


@spelled(
    inputs={**OVER_HISTORY, "length": OVER_HISTORY["target"]},
    context=["history", "length"],
    refused="depends on the|read into Python|cannot be traced",
)
class PackedSequence(nn.Module):
    """DIEN: `pack_padded_sequence`, whose batch sizes are read from lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, history: Tensor, target: Tensor, length: Tensor) -> Tensor:
        lengths = length[:, 0].abs().long() + 1
        packed = nn.utils.rnn.pack_padded_sequence(history, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.gru(packed)[1].squeeze(0) * target


test_spelling = spelling_tests(__name__)
