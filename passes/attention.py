"""Scaled dot-product attention is its parts: scores, softmax, product with the values.

softmax(Q K^T / sqrt(d)) V        each part by its own law: a grid of scores, a log-sum-exp merge, a sum over keys
"""

from __future__ import annotations

import math

import torch

from rankopt.axes import Rows, Size
from rankopt.dims import from_tensor
from rankopt.passes.bilinear import matmul
from rankopt.passes.data_movement import transpose
from rankopt.passes.elementwise import add, apply, mul
from rankopt.passes.softmax import over
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Value, leaves
from rankopt.workspace import Workspace


@rule(aten.scaled_dot_product_attention.default, law="attention = softmax(Q K^T / sqrt(d)) V, part by part")
def attention(
    w: Workspace,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """`[..., q, d], [..., k, d], [..., k, v] -> [..., q, v]`."""
    if dropout or enable_gqa:
        raise Refusal("attention with dropout or grouped queries")
    if not _shared(query, key, value):
        raise Refusal("no part of query, key or value is rank-2: the fused kernel is faster")
    width = query.shape[-1]
    if isinstance(width, Rows):
        raise Refusal("rows are summed")
    scores = matmul(w, mul(w, query, scale if scale is not None else 1.0 / math.sqrt(width)), transpose(w, key, -1, -2))
    if causal:
        mask = _causal(w, query.shape[-2], key.shape[-2])
    if mask is not None and mask.dtype == torch.bool:
        scores = apply(w, aten.where.ScalarOther, mask, scores, -math.inf)
    elif mask is not None:
        scores = add(w, scores, mask)
    return matmul(w, over(w, scores, -1, safe=True), value)


def _causal(w: Workspace, queries: Size, keys: Size) -> Value:
    """A query sees the keys up to its own place: [q, k]."""
    if isinstance(queries, Rows) or isinstance(keys, Rows):
        raise Refusal("attention among rows")
    return from_tensor(w, w.program.constant(torch.ones(queries, keys, dtype=torch.bool).tril()))


def _shared(*values: Value) -> bool:
    """Whether any part of any operand is the same for all candidates."""
    return any(not leaf.has_rows for value in values for leaf in leaves(value.node))
