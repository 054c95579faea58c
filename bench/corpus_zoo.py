"""The zoo: every model of the registry, with histories where it needs them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from corpus_models import CONTEXT, FIELDS, HISTORY, TARGET, Entry, draw_ids, vocabulary

from rankopt.zoo.fields import Field, Schema
from rankopt.zoo.registry import ENTRIES

FIELD_SCHEMA = Schema(tuple(Field(name, vocabulary(name)) for name in FIELDS), CONTEXT, TARGET)
HISTORIES = tuple(
    Field(f"past_{name}", vocabulary(name), history=HISTORY, of=name)
    for name in TARGET[:2]  # what the user saw before, and of which category
)
HISTORY_SCHEMA = Schema(
    (*FIELD_SCHEMA.fields, *HISTORIES), (*CONTEXT, *(field.name for field in HISTORIES)), TARGET
)  # fmt: skip


def entries() -> Iterator[Entry]:
    """Every model as it is configured by default, which is the corpus's width."""
    for name, entry in ENTRIES.items():
        schema = HISTORY_SCHEMA if entry.needs_history else FIELD_SCHEMA
        context = tuple(f"features.{field}" for field in schema.context)
        yield Entry("zoo", name, partial(entry.model, schema), partial(_rows, schema), context)


def _rows(schema: Schema, count: int) -> dict[str, Any]:
    """Random ids; a history is filled up to a length of its own, and padded behind it."""
    features = dict(zip(FIELDS, draw_ids(FIELDS, count).unbind(1), strict=True))
    filled = torch.arange(HISTORY) < torch.randint(1, HISTORY + 1, (count, 1))  # [R, L]
    for field in schema.fields:
        if field.is_history:
            features[field.name] = torch.randint(1, field.vocabulary, (count, HISTORY)) * filled
    return {"features": features}
