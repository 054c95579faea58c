"""Frozen dataclasses as JSON and back, by their annotations."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def encode(facts: Any) -> dict[str, Any]:
    """A dataclass as nested dicts and lists of strings and numbers."""
    plain: dict[str, Any] = _plain(asdict(facts))
    return plain


def decode(kind: type[T], data: dict[str, Any]) -> T:
    """The dataclass `kind` that was encoded, before it had some of its fields maybe, which then have their defaults.

    Raises KeyError, TypeError or ValueError for other data.
    """
    hints = get_type_hints(kind)
    known = [field for field in fields(kind) if field.name in data or field.default is MISSING]  # type: ignore[arg-type]
    values = {field.name: _decode(hints[field.name], data[field.name]) for field in known}
    return kind(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _decode(hint: Any, value: Any) -> Any:
    if get_origin(hint) is UnionType:
        if value is None:
            return None
        hint = next(option for option in get_args(hint) if option is not NoneType)
    if get_origin(hint) is tuple:
        return tuple(_decode(get_args(hint)[0], item) for item in value)
    if is_dataclass(hint):
        return decode(hint, value)  # type: ignore[arg-type]
    return hint(value)
