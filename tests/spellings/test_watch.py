"""What makes captured models hard to read: folds, rows off dim 0, constants with rows, sizes that depend on data."""

from __future__ import annotations

import torch
from laws.harness import Like
from spellings.harness import IDS, STEPS, D, F, K, M, N, U, fields, ids, spelled, spelling_tests
from torch import Tensor, nn

SPLIT = K * D * U + N * M * D * U
BY_FIELD = K * D * U + N * M * D * U


class Layer(nn.Module):
    """A linear layer over all features, or over those of a field."""

    def __init__(self, size: int = F * D) -> None:
        super().__init__()
        self.layer = nn.Linear(size, U)


class OfField(Layer):
    """A linear layer over the features of a field."""

    def __init__(self) -> None:
        super().__init__(D)


@spelled(work=BY_FIELD)
class RowMajorFold(OfField):
    """Rows folded with fields, row-major, the folded size by -1 and back by the number of rows."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        return self.layer(x.view(-1, D)).view(x.shape[0], F, U).relu()


@spelled(work=BY_FIELD)
class FieldMajorFold(OfField):
    """Rows folded with fields, field-major."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        folded = self.layer(x.transpose(0, 1).reshape(F * x.shape[0], D))
        return folded.view(F, x.shape[0], U).transpose(0, 1).relu()


@spelled(work=SPLIT)
class FlattenedOrder(Layer):
    """A boundary between fields that is one in the flattened order alone: [R, F * D] viewed as [R, D, F]."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return self.layer(fields(c, t).reshape(-1, D, F).transpose(1, 2).flatten(1)).relu()


@spelled(work=K * D * U + N * (M + 1) * D * U)
class StridedOperand(OfField):
    """nn.Linear on a slice, whose decomposition is another than that on a whole tensor."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        return self.layer(x[:, 1:]).relu() + self.layer(x[:, :-1]).tanh()


@spelled(work=SPLIT)
class StartsWithZeros(Layer):
    """A sum that starts with zeros [R, 1], extended in place."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        total = torch.zeros([x.shape[0], 1])
        for part in (x[:, :, 0].sum(1, keepdim=True), x[:, :, 1].sum(1, keepdim=True)):
            total += part
        return self.layer(x.flatten(1)).relu() + total


@spelled(work=SPLIT, opaque={"arange": "rows are numbered"})
class RowNumbers(Layer):
    """`arange(R)` as an index that takes every row."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t).flatten(1)
        return self.layer(x[torch.arange(x.shape[0])]).relu()


@spelled(work=SPLIT)
class RotationOfRows(nn.Module):
    """A random rotation, drawn once, repeated to [R, D, U]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rotation", torch.randn(1, D, U))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t)
        return torch.bmm(x, self.rotation.repeat(x.shape[0], 1, 1)).sign()


@spelled(work=SPLIT)
class SqueezedWithoutAxis(Layer):
    """`squeeze()` without an axis on [R, 1, n]."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return self.layer(fields(c, t).flatten(1).unsqueeze(1)).squeeze().relu()


@spelled(work=SPLIT)
class Noise(Layer):
    """Slices of everything, copies, casts to the same type, views of the same shape, a `cat` of one."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = torch.cat([fields(c, t)[:].clone()], dim=-1)
        x = x.expand(x.shape[0], F, D).view(x.shape).permute(0, -2, -1).contiguous().to(x.dtype)
        return self.layer(nn.functional.dropout(x, 0.5, self.training).flatten(-2)).relu()


@spelled(work=SPLIT)
class InPlace(Layer):
    """Assignments to what was computed: `masked_fill_`, `x[mask] = 0`, `x[:, 0] = 0`, `add_`, `clamp_`."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        x = fields(c, t) * 1.5
        x.masked_fill_(x > 2, 1.0)
        x[x < -2] = 0
        x[:, 0] = 0
        return self.layer(x.flatten(1)).add_(1.0).clamp_(0)


@spelled(inputs={"c": Like((STEPS, D)), "t": Like((D,))}, work=D * U + N * D * U)
class RowsOpened(Layer):
    """A boolean assignment to rows: those of which all steps are masked get one open step."""

    def __init__(self) -> None:
        super().__init__(2 * D)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        closed = c[:, :, 0] < 0.5
        closed[closed.all(dim=1), -1] = False
        pooled = (c * ~closed.unsqueeze(-1)).sum(1)
        return self.layer(torch.cat([pooled, t], 1)).relu()


@spelled(inputs={"c": ids(K), "t": ids(M)}, refused="size depends on the data")
class RowsFiltered(nn.Module):
    """Rows dropped by a boolean index."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(IDS, D)

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return self.table(t[c[:, 0] > 0]).sum()


@spelled(refused="size depends on the data|cannot be traced")
class Collisions(nn.Module):
    """SDIM: bags of the steps whose hashes collide, found by `nonzero`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("planes", torch.randn(D, 3))

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        collides = (c @ self.planes > 0) == (t[:, :1] @ self.planes > 0)  # [R, K, 3]
        flat = collides.all(-1).flatten()
        counts = collides.all(-1).sum(1)
        return nn.functional.embedding_bag(
            flat.nonzero().squeeze(1), c.reshape(-1, D), counts.cumsum(0) - counts, mode="sum"
        )


@spelled(refused="read into Python|depends on the value")
class NumberRead(nn.Module):
    """`.item()` of what is computed."""

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        return fields(c, t).flatten(1) * int(c.sum().item())


test_spelling = spelling_tests(__name__)
