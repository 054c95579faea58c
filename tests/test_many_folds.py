"""Many requests to models that fold rows with heads, or join weights and states: rows of a request stay together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.artefacts.many_comparison import verify_many
from rankopt.errors import ExportError
from rankopt.ranker import Ranker

HEADS, WIDTH = 3, 4
FLAT = HEADS * WIDTH


class Fold(nn.Module):
    """Users and items of some heads, and one of the functions below on them."""

    def __init__(self, function: Callable[[Fold, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(30, FLAT), nn.Embedding(30, FLAT)
        self.mix, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(2 * FLAT, 5)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.wide = nn.Parameter(torch.randn(FLAT))
        self.function = function

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.function(self, self.users(user), self.items(item))


def rows_outside(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    pair = m.mix(user.reshape(-1, WIDTH)) * m.mix(item.reshape(-1, WIDTH))  # [R * heads, width]
    return pair.sum(1).reshape(-1, HEADS).sum(1)


def heads_outside(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    first, second = (x.reshape(-1, HEADS, WIDTH).transpose(0, 1) for x in (user, item))
    both = torch.relu(first.reshape(-1, WIDTH) + second.reshape(-1, WIDTH))  # [heads * R, width]
    return m.mix(both).reshape(HEADS, -1, WIDTH).sum((0, 2))


def rows_between(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    first, second = (x.reshape(-1, HEADS, WIDTH).transpose(0, 1).reshape(HEADS, -1) for x in (user, item))
    return (torch.relu(first + second) * 2 + first).reshape(HEADS, -1, WIDTH).sum((0, 2))  # [heads, R * width]


def attention(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    fields = torch.cat([user.reshape(-1, HEADS, WIDTH), item.reshape(-1, HEADS, WIDTH)], 1)
    apart = fields.reshape(-1, 2 * HEADS, 2, WIDTH // 2).transpose(1, 2).reshape(-1, 2 * HEADS, WIDTH // 2)
    mixed = torch.bmm(torch.bmm(apart, apart.transpose(1, 2)).softmax(-1), apart)
    return m.out(torch.relu(mixed.reshape(-1, 2, 2 * HEADS, WIDTH // 2).transpose(1, 2).reshape(-1, 2 * FLAT))).sum(1)


def token(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    """A learned token among the fields of the context, and among those of the target."""
    first = torch.cat([m.token.expand(len(user), 1, WIDTH), user.reshape(-1, HEADS, WIDTH)], 1)
    second = torch.cat([m.token.expand(len(user), -1, -1), item.reshape(-1, HEADS, WIDTH)], 1)
    return torch.bmm(torch.bmm(second, first.transpose(1, 2)).softmax(-1), first).sum((1, 2))


def weight(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    """A weight of every row joined with a state."""
    hidden = torch.tanh(m.out(torch.cat([m.wide.expand(len(user), -1), user], 1)))
    return (hidden[:, :, None] * item[:, None, :]).sum((1, 2))


def pieces(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    fields = torch.cat([user.reshape(-1, HEADS, WIDTH), item.reshape(-1, HEADS, WIDTH)], 1)
    heads = torch.cat(fields.split(WIDTH // 2, 2), 0)  # [2 * R, fields, width / 2]
    mixed = torch.bmm(torch.bmm(heads, heads.transpose(1, 2)).softmax(-1), heads)
    return m.out(torch.cat(mixed.chunk(2, 0), 2).flatten(1)).sum(1)


def written(m: Fold, user: Tensor, item: Tensor) -> Tensor:
    """A weight in the place of some rows, for which there is no call for all requests."""
    both = user + item
    both[item[:, 0] > 0] = m.wide
    return both.sum(1)


FUNCTIONS = (rows_outside, heads_outside, rows_between, attention, token, weight, pieces, written)


@cache
def ranker_of(function: Callable[..., Tensor], unchanged: bool = False) -> tuple[Ranker, Fold]:
    torch.manual_seed(0)
    model = Fold(function).double().eval()
    rows = (torch.randint(30, (40,)), torch.randint(30, (40,)))
    options = {"passes": []} if unchanged else {}
    return rankopt.optimize(model, ["user"], example_inputs=rows, candidates=512, **options), model


@pytest.mark.parametrize("unchanged", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_request_has_its_own_scores(function: Callable[..., Tensor], unchanged: bool) -> None:
    ranker, model = ranker_of(function, unchanged)
    with torch.no_grad():
        users, items = torch.tensor([3, 9, 3, 20]), torch.arange(24).reshape(4, 6)
        dense = torch.stack([model(users[b].expand(6), items[b]) for b in range(4)])
        torch.testing.assert_close(ranker.many({"user": users}, {"item": items}), dense)
        lengths = torch.tensor([4, 0, 1, 19])
        own = torch.arange(4).repeat_interleave(lengths)
        parts = zip(users, torch.arange(24).split(lengths.tolist()), strict=True)
        ragged = torch.cat([model(user.expand(len(part)), part) for user, part in parts if len(part)])
        torch.testing.assert_close(ranker.many({"user": users}, {"item": torch.arange(24)}, lengths=lengths), ragged)
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        shuffled = ranker.many({"user": users}, {"item": order}, request_of=own[order])
        torch.testing.assert_close(shuffled, ragged[order])


@pytest.mark.parametrize(
    ("function", "many", "ending"),
    [
        (heads_outside, "dense", "pt2"),
        (token, "dense", "pt2"),
        (token, "lengths", "onnx"),
        (weight, "request_of", "onnx"),
    ],
)
def test_files(function: Callable[..., Tensor], many: str, ending: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = (torch.randint(30, (40,)), torch.randint(30, (40,)))
    ranker = rankopt.optimize(Fold(function).eval(), ["user"], example_inputs=rows, backend="onnxruntime")
    assert ranker.export(tmp_path / f"many.{ending}", many=many).agreement.identical()


@pytest.mark.parametrize("name", ["many.onnx", "many.pt2", "many.aoti.pt2"])
def test_what_cannot_be_one_call_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    class First(nn.Module):
        def forward(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
            return torch.relu(user + item).t(), user[:1]

    rows = (torch.randn(8, 3), torch.randn(8, 3))
    ranker = rankopt.optimize(First().eval(), ["user"], example_inputs=rows)
    with pytest.raises(ExportError, match=r"cannot be run together: aten.slice.Tensor may mix rows(.|\n)*fix:"):
        ranker.export(tmp_path / name, many="lengths")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["one.pt2", "one.onnx", "stages.pt2", "rows.pt2"])
def test_what_torch_cannot_follow_is_refused(name: str, tmp_path: Path) -> None:
    ranker, _ = ranker_of(pieces, unchanged=True)
    options = {"stages": name == "stages.pt2", "signature": "rows" if name == "rows.pt2" else "request"}
    with pytest.raises(ExportError, match=r"torch.export cannot write the ranker(.|\n)*fix:"):
        ranker.export(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_reads_the_order_of_its_rows_is_verified() -> None:
    class Running(nn.Module):
        def forward(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
            return torch.relu(user + item).cumsum(0).sum(1), user[:1]

    rows = (torch.randn(8, 3), torch.randn(8, 3))
    ranker = rankopt.optimize(Running().eval(), ["user"], example_inputs=rows)
    assert ranker.origin is not None
    assert verify_many(ranker, ranker.origin[0], 4, (1, 3)).identical()
