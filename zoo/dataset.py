"""Rows of ids and labels, and how text becomes ids."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from rankopt.zoo.fields import PADDING, UNKNOWN, Field, Schema

Column = Sequence[tuple[str, ...]]
"""The values of one field, row by row; a single-valued field has one per row."""

Role = Literal["context", "target"]


class RowSource(Protocol):
    """Rows in memory, or streamed from a file that does not fit there."""

    def __len__(self) -> int: ...

    def batches(self, size: int, seed: int | None = None, start: int = 0) -> "Iterator[Rows]":
        """The rows in batches of `size`, the last one may be smaller, without the first `start` batches.

        They come in their order; with a seed, in an order that depends on nothing else.
        """
        ...

    def first(self, count: int) -> "Rows":
        """The first rows, in memory."""
        ...

    def only(self, names: Iterable[str]) -> Self:
        """The same rows, with these fields alone."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Ids [R, ...] by field, and float labels [R] in {0, 1}."""

    features: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | slice) -> "Rows":
        return Rows({name: ids[index] for name, ids in self.features.items()}, self.labels[index])

    def first(self, count: int) -> "Rows":
        return self.take(slice(None, count))

    def split(self, first: int) -> tuple["Rows", "Rows"]:
        """The first rows and the others."""
        return self.first(first), self.take(slice(first, None))

    def batches(self, size: int, seed: int | None = None, start: int = 0) -> Iterator["Rows"]:
        order = torch.arange(len(self)) if seed is None else permutation(len(self), seed)
        for batch in order.split(size)[start:]:
            yield self.take(batch)

    def only(self, names: Iterable[str]) -> "Rows":
        return Rows({name: self.features[name] for name in names}, self.labels)

    def to(self, device: torch.device) -> "Rows":
        return Rows({name: ids.to(device) for name, ids in self.features.items()}, self.labels.to(device))


def permutation(count: int, seed: int) -> Tensor:
    """A random order of `count` things that leaves the global generator alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How Adam trains a model; how long depends on the data and is found on its validation part.

    `embedding_l2` weighs the squared norm of the vectors that a row looks up.
    """

    learning_rate: float = 2e-3
    embedding_l2: float = 1e-3


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to train on a data set: at most `epochs`, fewer once `patience` of them brought nothing."""

    batch_size: int = 1024
    epochs: int = 10
    patience: int = 1
    validation_fraction: float = 0.1


@dataclass(frozen=True, slots=True)
class Dataset:
    """A schema, the rows to learn from and those to be judged on.

    Without validation rows of its own, the last of the training rows are taken for it, and what they taught is used in
    a second pass over all of them (see `rankopt.zoo.train`). A `recipe` is that of the data's public benchmark: all
    models are trained with it there, instead of each with its own.
    """

    name: str
    schema: Schema
    train: RowSource
    test: RowSource
    schedule: Schedule = Schedule()
    validation: RowSource | None = None
    recipe: Recipe | None = None

    def only(self, role: Role) -> "Dataset":
        """The ablation that sees nothing but the context, or nothing but the target."""
        names = self.schema.context if role == "context" else self.schema.target
        validation = None if self.validation is None else self.validation.only(names)
        return replace(
            self,
            schema=self.schema.only(names),
            train=self.train.only(names),
            test=self.test.only(names),
            validation=validation,
        )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Ids of known values; all others share UNKNOWN, and PADDING is kept free."""

    ids: dict[str, int]

    @classmethod
    def fit(cls, values: Iterable[str], minimum: int = 2) -> "Vocabulary":
        """Knows the values that occur at least `minimum` times; their order does not matter."""
        counts = Counter(values)
        known = sorted(value for value, count in counts.items() if count >= minimum)
        return cls({value: id_ for id_, value in enumerate(known, start=UNKNOWN + 1)})

    @property
    def size(self) -> int:
        return UNKNOWN + 1 + len(self.ids)

    def encode(self, column: Column, length: int) -> Tensor:
        """[R] where the field is single-valued (length 1), else padded to [R, length]."""
        padding = [PADDING] * length
        rows = [([self.ids.get(value, UNKNOWN) for value in values] + padding)[:length] for values in column]
        ids = torch.tensor(rows, dtype=torch.int64).reshape(len(column), length)
        return ids.squeeze(1) if length == 1 else ids


def encode_dataset(
    name: str,
    columns: Mapping[str, Column],
    labels: Sequence[int],
    *,
    target: Sequence[str],
    train_rows: int,
    schedule: Schedule,
) -> Dataset:
    """Columns of text, training rows first, as a data set; vocabularies come from the training rows alone.

    Fields that are not target are context. Fields keep the order of the columns.
    """
    fields, features = [], {}
    for field_name, column in columns.items():
        vocabulary = Vocabulary.fit(value for values in column[:train_rows] for value in values)
        length = max(len(values) for values in column)
        fields.append(Field(field_name, vocabulary.size, length))
        features[field_name] = vocabulary.encode(column, length)
    context = tuple(field_name for field_name in columns if field_name not in target)
    train, test = Rows(features, torch.tensor(labels, dtype=torch.float32)).split(train_rows)
    return Dataset(name, Schema(tuple(fields), context, tuple(target)), train, test, schedule)
