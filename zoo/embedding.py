"""The front end that all models share: embedding tables by field."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankopt.zoo.fields import PADDING, Field


class FieldEmbedding(nn.Module):
    """Looks every field up in its table and stacks the vectors in field order.

    A multi-valued field is the mean of the vectors of its non-padding ids, and zero where there is none. A history
    shares the table of the candidate's field that it lists; here it is the mean over its items.
    """

    def __init__(self, fields: Sequence[Field], dim: int) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.dim = dim
        tables: dict[str, nn.Embedding] = {}
        for field in fields:
            if field.table not in tables:
                tables[field.table] = nn.Embedding(field.vocabulary, dim)
        for table in tables.values():
            nn.init.normal_(table.weight, std=0.03)
        self.tables = nn.ModuleDict(tables)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R, ...]} -> [R, F, D]."""
        vectors = []
        for field in self.fields:
            vector = self.look_up(field, features)
            if field.is_history:
                vector = masked_mean(vector, is_item(field, features))
            vectors.append(vector)
        return torch.stack(vectors, dim=1)

    def look_up(self, field: Field, features: dict[str, Tensor]) -> Tensor:
        """[R, D], or [R, L, D] for a history of L items."""
        ids = features[field.name]
        vectors = self.tables[field.table](ids)
        return masked_mean(vectors, ids != PADDING) if field.is_multi_valued else vectors


def is_item(field: Field, features: dict[str, Tensor]) -> Tensor:
    """Which places of a history hold an item: bool [R, L]."""
    filled = features[field.name] != PADDING
    return filled.any(dim=-1) if field.is_multi_valued else filled


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean over L of the vectors [..., L, D] that the mask [..., L] keeps -> [..., D]; zero where it keeps none."""
    weights = mask.unsqueeze(-1).to(vectors.dtype)
    return (vectors * weights).sum(dim=-2) / weights.sum(dim=-2).clamp(min=1)
