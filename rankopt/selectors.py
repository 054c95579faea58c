"""Selectors: how the user says which inputs belong to the request.

    user_id             an input by its path
    features.user_*     a glob over paths; `*` also crosses dots
    x[:, :20]           columns (dim 1) of a packed input: a slice, an index, or a list of indices
    x[:, [0, 3, 5]]

What no selector names is target. A selector is read by `parse_selector`; `resolve_roles` turns the selectors
of a call into one `InputRole` per input.
"""

import ast
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from rankopt.errors import RolesError

_SELECTOR = re.compile(r"(?P<pattern>[^\[\]\s]+)\s*(\[\s*:\s*,\s*(?P<columns>.+?)\s*\])?")
_SLICE = re.compile(r"(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?[1-9]\d*)?)?")


class Role(Enum):
    """What an input varies with: the request alone, the candidate, or both (each in columns of its own)."""

    CONTEXT = "context"
    TARGET = "target"
    PACKED = "packed"


@dataclass(frozen=True, slots=True)
class InputRole:
    """The role of one input. The columns, of dim 1 and ascending, are given for `Role.PACKED` only.

    A packed input of shape [R, C, ...] is served as two tensors of the same name: the context part
    [1, len(context_columns), ...] and the target part [N, len(target_columns), ...].
    """

    name: str
    role: Role
    context_columns: tuple[int, ...] = ()
    target_columns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector: a glob over input paths, and columns of dim 1 if it names any."""

    text: str
    pattern: str
    columns: slice | tuple[int, ...] | None = None

    def matching(self, names: Sequence[str]) -> list[str]:
        """The names that this selector means, in the order given. Raises RolesError where there are none."""
        found = [name for name in names if fnmatchcase(name, self.pattern)]
        if not found:
            raise RolesError(
                f"selector '{self.text}' matches no input.\n"
                f"  inputs: {', '.join(names)}\n"
                f"  fix: {_nearest(self.pattern, names)}"
            )
        return found

    def columns_of(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The columns of dim 1 that are meant in an input of this shape, ascending.

        Raises RolesError where the input has no columns, lacks one that is named, or none is left.
        """
        if self.columns is None:
            return tuple(range(_width(shape)))
        if len(shape) < 2:
            raise RolesError(
                f"selector '{self.text}' names columns, but '{name}' of shape {list(shape)} has none.\n"
                f"  fix: select the whole input, '{name}'"
            )
        width = shape[1]
        if isinstance(self.columns, slice):
            columns = list(range(width)[self.columns])
        else:
            outside = [column for column in self.columns if not -width <= column < width]
            if outside:
                raise RolesError(
                    f"selector '{self.text}' names column {outside[0]}, but '{name}' has {width} columns.\n"
                    f"  fix: columns 0 to {width - 1}, or -{width} to -1 counted from the end"
                )
            columns = [column % width for column in self.columns]
        if not columns:
            raise RolesError(
                f"selector '{self.text}' names no column of '{name}', which has {width}.\n"
                f"  fix: columns 0 to {width - 1}"
            )
        if len(set(columns)) < len(columns):
            twice = next(column for column in columns if columns.count(column) > 1)
            raise RolesError(f"selector '{self.text}' names column {twice} of '{name}' twice.\n  fix: name it once")
        return tuple(sorted(columns))


def parse_selector(text: str) -> Selector:
    """Reads one selector. Raises RolesError, with the forms there are, where it cannot be read."""
    match = _SELECTOR.fullmatch(text.strip())
    if match is None:
        raise _unreadable(text)
    columns = match["columns"]
    return Selector(text, match["pattern"], None if columns is None else _parse_columns(columns, text))


def resolve_roles(
    shapes: Mapping[str, tuple[int, ...]], context: Sequence[str], target: Sequence[str] | None = None
) -> tuple[InputRole, ...]:
    """Gives every input its role, in the order of `shapes`.

    Args:
        shapes: the shape of each input by its path; dim 0 counts rows. An input without dims is shared by all
            rows, so it is always context.
        context: selectors of what belongs to the request.
        target: selectors of what belongs to the candidate. What no selector names is target anyway; naming it
            has it checked.

    Raises RolesError where a selector cannot be read or matches nothing, where an input or a column is named
    twice, and where nothing is left that varies with the candidate.
    """
    owners: dict[str, dict[int, tuple[Role, str]]] = {name: {} for name in shapes}  # column -> its role and selector
    for role, texts in ((Role.CONTEXT, context), (Role.TARGET, target or ())):
        for text in _as_sequence(texts):
            _claim(owners, shapes, parse_selector(text), role)
    roles = tuple(_role_of(name, shape, owners[name]) for name, shape in shapes.items())
    if all(role.role is Role.CONTEXT for role in roles):
        raise RolesError(
            "every input is context, so no candidate differs from another.\n"
            f"  inputs: {', '.join(shapes)}\n"
            "  fix: leave out of `context` what varies with the candidate"
        )
    return roles


def _claim(
    owners: dict[str, dict[int, tuple[Role, str]]],
    shapes: Mapping[str, tuple[int, ...]],
    selector: Selector,
    role: Role,
) -> None:
    """Enters what `selector` names as `role`."""
    for name in selector.matching(list(shapes)):
        if not shapes[name] and role is Role.TARGET:
            if name == selector.pattern:
                raise RolesError(
                    f"'{name}' is a scalar, shared by all rows: it cannot be a target input.\n"
                    "  fix: give it one value per candidate, [N], or leave it out of `target`"
                )
            continue
        for column in selector.columns_of(name, shapes[name]):
            if column in owners[name]:
                raise _named_twice(name, column, shapes[name], owners[name][column], (role, selector.text))
            owners[name][column] = (role, selector.text)


def _role_of(name: str, shape: tuple[int, ...], owners: Mapping[int, tuple[Role, str]]) -> InputRole:
    if not shape:
        return InputRole(name, Role.CONTEXT)
    width = _width(shape)
    context = tuple(column for column in range(width) if column in owners and owners[column][0] is Role.CONTEXT)
    if not context:
        return InputRole(name, Role.TARGET)
    if len(context) == width:
        return InputRole(name, Role.CONTEXT)
    return InputRole(name, Role.PACKED, context, tuple(sorted(set(range(width)) - set(context))))


def _width(shape: tuple[int, ...]) -> int:
    """The number of columns. An input without dim 1, or with an empty one, is all one column."""
    return max(shape[1], 1) if len(shape) > 1 else 1


def _parse_columns(columns: str, text: str) -> slice | tuple[int, ...]:
    if match := _SLICE.fullmatch(columns):
        start, stop, step = (None if part is None else int(part) for part in match.groups())
        return slice(start, stop, step)
    try:
        value = ast.literal_eval(columns)
    except (ValueError, SyntaxError):
        raise _unreadable(text) from None
    indices = value if isinstance(value, list) else [value]
    if not all(type(index) is int for index in indices):
        raise _unreadable(text)
    return tuple(indices)


def _as_sequence(texts: Sequence[str]) -> Sequence[str]:
    """A lone selector is a string, and a string is a sequence of strings: take it for what was meant."""
    return (texts,) if isinstance(texts, str) else texts


def _nearest(pattern: str, names: Sequence[str]) -> str:
    inside = [name for name in names if name.startswith(f"{pattern}.")]
    if inside:
        return f"'{pattern}.*' names all that is inside of it"
    by_last_part = {name.rpartition(".")[2]: name for name in names}
    near = difflib.get_close_matches(pattern, names, n=1) or [
        by_last_part[part] for part in difflib.get_close_matches(pattern.rpartition(".")[2], by_last_part, n=1)
    ]
    return f"nearest: '{near[0]}'" if near else "name an input by its path, or several by a glob such as 'user_*'"


def _named_twice(
    name: str, column: int, shape: tuple[int, ...], first: tuple[Role, str], second: tuple[Role, str]
) -> RolesError:
    what = f"column {column} of '{name}'" if _width(shape) > 1 and "[" in first[1] + second[1] else f"'{name}'"
    return RolesError(
        f"{what} is named twice: '{first[1]}' ({first[0].value}) and '{second[1]}' ({second[0].value}).\n"
        "  fix: let one selector name it"
    )


def _unreadable(text: str) -> RolesError:
    return RolesError(
        f"selector '{text}' cannot be read.\n"
        "  expected: a path ('features.user_id'), a glob ('user_*'), or columns of a packed input\n"
        "            ('x[:, :20]', 'x[:, 5]', 'x[:, [0, 3]]', 'x[:, ::2]', 'x[:, -3:]')"
    )
