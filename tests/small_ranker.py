"""A small ranker as people write them, and its export: shared by the tests of the command line."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim


class Small(nn.Module):
    """Two embeddings, a packed input, a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(50, 64)
        self.items = nn.Embedding(60, 8)
        self.hidden = nn.Linear(64 + 8 + 4, 128)
        self.output = nn.Linear(128, 1)

    def forward(self, user_id: Tensor, item_id: Tensor, x: Tensor) -> Tensor:
        rows = torch.cat([self.users(user_id), self.items(item_id), x], dim=1)
        return self.output(torch.relu(self.hidden(rows))).squeeze(1)


def example_rows() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(50, (64,), generator=generator) for _ in range(2)]
    return ids[0], ids[1], torch.randn(64, 4, generator=generator)


def export_to(path: Path, model: nn.Module) -> Path:
    rows = example_rows()
    program = torch.export.export(model, rows, dynamic_shapes=({0: Dim("rows")},) * len(rows), strict=False)
    torch.export.save(program, path)
    return path
