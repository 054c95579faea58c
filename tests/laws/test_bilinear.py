"""Products of activations: a grid of blocks, each of its own rank."""

from __future__ import annotations

import torch
from laws.harness import Case, Like, law_tests
from torch import Tensor, nn

EINSUM = torch.einsum


def fields(c: Tensor, t: Tensor) -> Tensor:
    """[R, 6, 4]"""
    return torch.cat([c[:, :2], t, c[:, 1:]], 1)


def gram(c: Tensor, t: Tensor) -> Tensor:
    return torch.bmm(fields(c, t), fields(c, t).mT)


per_field = {"w": nn.Parameter(torch.randn(6, 4, 3))}
matrix = {"w": nn.Parameter(torch.randn(6, 5))}

over_both = {"w": torch.randn(4, 6, 3)}

CASES = [
    Case("bilinear.matmul", lambda c, t: torch.bmm(fields(c, t), fields(c, t).mT)),
    Case("bilinear.matmul", lambda c, t: gram(c, t)[:, [2, 3, 3], [0, 1, 2]]),
    Case("bilinear.matmul", lambda c, t: torch.bmm(c, c.mT).exp() @ c, once="exp"),
    Case("bilinear.matmul", lambda c, t: t @ c.mT),
    Case("bilinear.matmul", lambda c, t: (fields(c, t).unsqueeze(2) @ torch.ones(4)).squeeze(-1)),
    Case("bilinear.matmul", lambda c, t: torch.ones(6) @ fields(c, t)),
    Case("bilinear.matmul", lambda c, t, w: (fields(c, t).mT @ w).mT.relu(), given=matrix),  # W is expanded over rows
    Case("bilinear.matmul", lambda c, t, w: fields(c, t).transpose(0, 1).bmm(w).transpose(0, 1), given=per_field),
    Case(
        "bilinear.matmul",
        lambda c, t, w: torch.bmm(w.expand(t.shape[0], 4, 4), fields(c, t).mT),
        given={"w": torch.randn(1, 4, 4)},
    ),
    Case(
        "bilinear.matmul", lambda c, t: torch.bmm(c.view(-1, 6, 2), t.reshape(-1, 2, 4)), c=Like((3, 4)), t=Like((2, 4))
    ),
    Case("bilinear.matmul", lambda c, t: t[:, 0] @ t[:, 1].mT, refuses="a product between rows"),
    Case("bilinear.matmul", lambda c, t: t[:, 0].mT @ c[:, 0], refuses="rows are summed"),
    Case("bilinear.matmul", lambda c, t: c.long() @ t.long().mT, refuses="a product of integers"),
    Case(
        "bilinear.einsum", lambda c, t, w: EINSUM("rfd,fde->rfe", fields(c, t), w).tanh(), once="tanh", given=per_field
    ),
    Case("bilinear.einsum", lambda c, t: EINSUM("rfd,rgd->rfg", c, fields(c, t)).exp(), once="exp"),
    Case("bilinear.einsum", lambda c, t: EINSUM("rfd,rgd->rfgd", c, t).reshape(-1, 6, 4)),
    Case("bilinear.einsum", lambda c, t, w: EINSUM("rfd,rgd,de->rfge", c, t, w), given={"w": torch.randn(4, 2)}),
    Case("bilinear.einsum", lambda c, t: EINSUM("rfd->rd", fields(c, t))),
    Case("bilinear.einsum", lambda c, t: EINSUM("rfd", fields(c, t)) + EINSUM("rfd->dfr", fields(c, t))),
    Case("bilinear.einsum", lambda c, t: EINSUM("rfd,rfd", c[:, :2], t), refuses="rows are summed"),
    Case("bilinear.einsum", lambda c, t: EINSUM("...d,...d->...", c[:, :2], t), refuses="an ellipsis"),
    Case("bilinear.tensordot", lambda c, t, w: torch.tensordot(fields(c, t), w, ([2], [0])), given=over_both),
    Case("bilinear.tensordot", lambda c, t, w: torch.tensordot(fields(c, t), w, ([1, 2], [1, 0])), given=over_both),
    Case("bilinear.einsum", lambda c, t: EINSUM("rdd->rd", gram(c, t)), refuses="a diagonal"),
    # interactions, as models spell them
    Case("bilinear.matmul", lambda c, t: (gram(c, t) * 0.5).reshape(-1, 2, 3, 6).sum(2)),
    Case(
        "bilinear.einsum",
        lambda c, t, w: (EINSUM("rfd,rgd->rfgd", fields(c, t), fields(c, t)).flatten(1, 2).mT @ w).mT,
        given={"w": torch.randn(36, 2)},
    ),
]  # fmt: skip

test_cases = law_tests(CASES)
