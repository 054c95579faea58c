"""The front end that all models share: one embedding table per field."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankopt.zoo.fields import PADDING, Field


class FieldEmbedding(nn.Module):
    """Looks every field up in its own table and stacks the vectors in field order.

    A multi-valued field is the mean of the vectors of its non-padding ids, and zero where there is none.
    """

    def __init__(self, fields: Sequence[Field], dim: int) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.dim = dim
        tables = {field.name: nn.Embedding(field.vocabulary, dim) for field in fields}
        for table in tables.values():
            nn.init.normal_(table.weight, std=0.03)
        self.tables = nn.ModuleDict(tables)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{field: ids [R] or [R, L]} -> [R, F, D]."""
        vectors = []
        for field in self.fields:
            ids = features[field.name]
            vector = self.tables[field.name](ids)
            if field.is_multi_valued:
                vector = masked_mean(vector, ids != PADDING)
            vectors.append(vector)
        return torch.stack(vectors, dim=1)


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean over L of the vectors [R, L, D] that the mask [R, L] keeps -> [R, D]; zero where it keeps none."""
    weights = mask.unsqueeze(-1).to(vectors.dtype)
    return (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
