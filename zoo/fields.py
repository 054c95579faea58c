"""What a model and a data set have to agree on: the fields of a row, and which of them are context."""

from dataclasses import dataclass

PADDING = 0
"""Id that fills up a multi-valued field; it takes no part in the mean of the embeddings."""

UNKNOWN = 1
"""Id of every value that training saw fewer than twice."""


@dataclass(frozen=True, slots=True)
class Field:
    """One categorical feature of a row: ids in [0, vocabulary).

        plain            [R]
        multi-valued     [R, length]            padded with PADDING
        of a history     [R, history, ...]      one entry per earlier item, the newest first, padded alike

    `of` names the field of the candidate whose values a history lists: both look up the same embedding table.
    A history without it says something else about the earlier items: what the user did with them.
    """

    name: str
    vocabulary: int
    length: int = 1
    history: int = 0
    of: str = ""

    @property
    def is_multi_valued(self) -> bool:
        return self.length > 1

    @property
    def is_history(self) -> bool:
        return self.history > 0

    @property
    def table(self) -> str:
        """Name of the embedding table that the ids index."""
        return self.of or self.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the ids of one row."""
        items = (self.history,) if self.is_history else ()
        return (*items, self.length) if self.is_multi_valued else items


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of a data set in the order of its rows, each either context or target.

    Roles belong to the data: most models are built from `fields` and never see them. A model with one stream for the
    context and one for the target asks for `places`.
    """

    fields: tuple[Field, ...]
    context: tuple[str, ...]
    target: tuple[str, ...]

    def __post_init__(self) -> None:
        names = sorted(field.name for field in self.fields)
        roles = sorted(self.context + self.target)
        if names != roles:
            raise ValueError(f"each field needs exactly one role: fields {names}, roles given to {roles}")

    def places(self) -> tuple[list[int], list[int]]:
        """Where in `fields` those of the context stand, and those of the target.

        Raises:
            ValueError: there is no field of one of the roles.
        """
        if not self.context or not self.target:
            raise ValueError(f"expected fields of either role: context {self.context}, target {self.target}")
        context = [place for place, field in enumerate(self.fields) if field.name in self.context]
        return context, [place for place in range(len(self.fields)) if place not in context]

    def only(self, names: tuple[str, ...]) -> "Schema":
        """The schema with every other field dropped; order kept."""
        return Schema(
            tuple(field for field in self.fields if field.name in names),
            tuple(name for name in self.context if name in names),
            tuple(name for name in self.target if name in names),
        )
