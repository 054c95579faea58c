"""Models of the zoo with few and narrow layers: quick to export, and with every kind of layer that they have."""

from dataclasses import fields, replace
from typing import Any

TINY: dict[str, Any] = {
    "embedding_dim": 4,
    "layers": 2,
    "rank": 3,
    "width": 8,
    "maps": (3, 2),
    "hidden": (6, 5),
    "head": (6, 5),
    "deep": (6, 5),
    "top": (6, 5),
    "bottom": (6, 5),
    "buckets": 16,
}
"""What is made small, wherever a configuration has it and has it switched on."""


def tiny(config: Any) -> Any:
    """The same kind of model with few and narrow layers."""
    given = {field.name: getattr(config, field.name) for field in fields(config)}
    return replace(config, **{name: size for name, size in TINY.items() if given.get(name)})
