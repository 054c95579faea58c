"""Selections by a constant mask become selections by a constant index, of a static shape."""

import pytest
import torch
from torch import Tensor

from capturing import assert_equal_to, operators, size_as_int, small, two_inputs
from rankopt.capture import capture


def gram(x: Tensor) -> Tensor:
    fields = x.reshape(-1, 3, 2)
    return fields @ fields.transpose(1, 2)  # [R, 3, 3]


def pooled(x: Tensor, mask: Tensor) -> Tensor:
    return gram(x).masked_select(mask).view(len(x), -1).sum(1, keepdim=True)


TRIANGLE = torch.triu(torch.ones(3, 3), 1).bool()
MASKS = {
    "masked_select": lambda self, x: torch.masked_select(gram(x), self.mask).view(-1, 3),
    "leading_one": lambda self, x: gram(x).masked_select(self.mask[None]).view(-1, 3) + x[:, :3],
    "broadcast": lambda self, x: (
        (x.reshape(-1, 3, 2)[:, None] * x.reshape(-1, 3, 2)[:, :, None])
        .masked_select(self.mask.unsqueeze(-1))
        .view(-1, 3, 2)
        .sum(2)
    ),
    "computed": lambda self, x: gram(x).masked_select(torch.ones(3, 3).triu(1) > 0).view(-1, 3),
    "index": lambda self, x: gram(x)[:, self.mask] + x[:, :3],
    "nonzero": lambda self, x: gram(x).flatten(1)[:, self.mask.flatten().nonzero().squeeze(1)],
    "where": lambda self, x: x[:, torch.where(torch.arange(6) > 2)[0]],
    "recurrent": lambda self, x: torch.gru_cell(pooled(x, self.mask), x[:, :2], torch.ones(6, 1), torch.ones(6, 2)),
    "two_states": lambda self, x: torch.lstm_cell(
        pooled(x, self.mask), [x[:, :2], x[:, 2:4]], torch.ones(8, 1), torch.ones(8, 2)
    )[1],
    "item": lambda self, x: x * self.mask.sum().item(),
    "rows_as_int": lambda self, x: gram(x).masked_select(self.mask).view(size_as_int(x), 3),
}


@pytest.mark.parametrize("spelling", MASKS)
def test_constant_masks_become_constant_indices(spelling):
    model = small(MASKS[spelling], mask=TRIANGLE)
    captured = capture(model, two_inputs())
    assert_equal_to(model, captured)
    assert not {"masked_select", "nonzero", "item", "_local_scalar_dense"} & set(operators(captured))
    for node in captured.graph_module.graph.nodes:
        for size in getattr(node.meta.get("val"), "shape", ()):
            assert isinstance(size, int) or size.node.expr.free_symbols == {captured.rows}
