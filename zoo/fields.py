"""What a model and a data set have to agree on: the fields of a row, and which of them are context."""

from dataclasses import dataclass

PADDING = 0
"""Id that fills up a multi-valued field; it takes no part in the mean of the embeddings."""

UNKNOWN = 1
"""Id of every value that training saw fewer than twice."""


@dataclass(frozen=True, slots=True)
class Field:
    """One categorical feature: ids in [0, vocabulary), as [R] or, where length > 1, padded to [R, length]."""

    name: str
    vocabulary: int
    length: int = 1

    @property
    def is_multi_valued(self) -> bool:
        return self.length > 1


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of a data set in the order of its rows, each either context or target.

    Roles belong to the data, not to the model: a model is built from `fields` and never sees the roles.
    """

    fields: tuple[Field, ...]
    context: tuple[str, ...]
    target: tuple[str, ...]

    def __post_init__(self) -> None:
        names = sorted(field.name for field in self.fields)
        roles = sorted(self.context + self.target)
        if names != roles:
            raise ValueError(f"each field needs exactly one role: fields {names}, roles given to {roles}")

    def only(self, names: tuple[str, ...]) -> "Schema":
        """The schema with every other field dropped; order kept."""
        return Schema(
            tuple(field for field in self.fields if field.name in names),
            tuple(name for name in self.context if name in names),
            tuple(name for name in self.target if name in names),
        )
