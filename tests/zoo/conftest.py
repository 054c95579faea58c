"""Rows to feed the models of the zoo with."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from rankopt.zoo.fields import PADDING, Field, Schema

DrawRows = Callable[..., dict[str, Tensor]]


def draw(fields: Sequence[Field], rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Random ids for every field; multi-valued fields get one to `length` values, then padding.

    The first row has no history, the others have up to as many items as there is room for.
    """
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(0, 1 + max(field.history for field in fields), (rows,), generator=generator)
    items[:1] = 0
    features = {}
    for field in fields:
        ids = torch.randint(1, field.vocabulary, (rows, *field.shape), generator=generator)
        if field.is_multi_valued:
            filled = torch.randint(1, field.length + 1, (*ids.shape[:-1], 1), generator=generator)
            ids = ids.masked_fill(torch.arange(field.length) >= filled, PADDING)
        if field.is_history:
            missing = torch.arange(field.history) >= items[:, None]  # [R, L]
            ids = ids.masked_fill(missing.unsqueeze(-1) if field.is_multi_valued else missing, PADDING)
        features[field.name] = ids
    return features


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are computed faster by one thread than by several that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def draw_rows() -> DrawRows:
    return draw


@pytest.fixture
def schema() -> Schema:
    """A few fields of either role, interleaved, one of them multi-valued; and a history of four items."""
    fields = (
        Field("user", 23),
        Field("item", 31),
        Field("hour", 24),
        Field("genres", 11, length=3),
        Field("city", 7),
        Field("price", 5),
        Field("seen", 31, history=4, of="item"),
        Field("seen_genres", 11, length=3, history=4, of="genres"),
        Field("liked", 4, history=4),
    )
    context = ("user", "hour", "city", "seen", "seen_genres", "liked")
    return Schema(fields, context=context, target=("item", "genres", "price"))
