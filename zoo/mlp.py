"""The feed-forward part that most rankers end in."""

from collections.abc import Sequence

from torch import Tensor, nn

HEAD = (256, 128, 64, 32)
"""Hidden widths of the head in the public benchmark configurations."""


class MLP(nn.Sequential):
    """Linear, ReLU and dropout per hidden layer: [R, width] -> [R, hidden[-1]]."""

    def __init__(self, width: int, hidden: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for before, after in zip((width, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers)


class LogitHead(nn.Module):
    """An MLP and a last linear layer of one unit: [R, width] -> logits [R]."""

    def __init__(self, width: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.hidden = MLP(width, hidden, dropout)
        self.output = nn.Linear(hidden[-1] if hidden else width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(x)).squeeze(-1)
