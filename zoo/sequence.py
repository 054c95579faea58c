"""What models of user behaviour share: the history of a row and its candidate as vectors of one width."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rankopt.zoo.embedding import FieldEmbedding, is_item
from rankopt.zoo.fields import Field


class Behaviour(NamedTuple):
    """A user's earlier items, the newest first, beside the candidate; W is the width of either."""

    items: Tensor
    """[R, L, W]"""
    target: Tensor
    """[R, W]"""
    mask: Tensor
    """[R, L], true where there is an item"""


class BehaviourEmbedding(FieldEmbedding):
    """The plain fields as vectors, the history and the candidate as a sequence, all from one set of tables.

    An item is the vectors of its own features and of what the user did with it, side by side. Of the candidate the
    latter is not known yet: a learned vector stands for it.

    Raises:
        ValueError: no field is a history, or it lists a field that is not there.
    """

    def __init__(self, fields: Sequence[Field], dim: int) -> None:
        super().__init__(fields, dim)
        history = [field for field in fields if field.is_history]
        lists, actions = [f for f in history if f.of], [f for f in history if not f.of]
        names = {field.name: field for field in fields}
        if not lists or any(field.of not in names for field in lists):
            raise ValueError(f"expected a history of the candidate's fields, found {[f.name for f in history]}")
        self.plain = tuple(field for field in fields if not field.is_history)
        self.of_target = tuple(names[field.of] for field in lists)
        self.of_items = (*lists, *actions)
        self.length = lists[0].history
        self.width = len(history) * dim
        self.unknown_action = nn.Parameter(torch.randn(len(actions) * dim) * 0.03) if actions else None

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Behaviour]:  # type: ignore[override]
        """{field: ids [R, ...]} -> plain fields [R, F, D], behaviour."""
        looked_up = {field.name: self.look_up(field, features) for field in (*self.plain, *self.of_items)}
        plain = torch.stack([looked_up[field.name] for field in self.plain], dim=1)
        items = torch.cat([looked_up[field.name] for field in self.of_items], dim=-1)
        target = torch.cat([looked_up[field.name] for field in self.of_target], dim=-1)
        if self.unknown_action is not None:
            target = torch.cat([target, self.unknown_action.expand(target.shape[0], -1)], dim=-1)
        # a list of categories may be empty, the identity of an item never is: it comes first
        return plain, Behaviour(items, target, is_item(self.of_items[0], features))
