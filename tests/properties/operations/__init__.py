"""The ops that random programs are made of.

Each operation looks at the values that exist, chooses operands and parameters that fit, calls the op and returns the
new value; or None, where nothing fits. What is computed stays bounded, and never asks on which side of a threshold a
rounding error falls: rewriting may move the last bit of every number.
"""

from __future__ import annotations

from properties.operations.along import attention, batch_norm, layer_norm, reduction, softmax
from properties.operations.elementwise import (
    binary,
    by_number,
    cast,
    filled,
    integers,
    mask,
    square,
    unary,
    where,
    with_parameter,
)
from properties.operations.fitting import Operation
from properties.operations.movement import (
    expand,
    flatten,
    flip,
    permute,
    refold,
    repeat,
    repeat_interleave,
    squeeze,
    transpose,
    unsqueeze,
)
from properties.operations.opaque import opaque
from properties.operations.picking import cat, embedding, index, index_select, select, slice_, split, stack, triangle
from properties.operations.products import conv1d, cross, einsum, gram, linear, matmul, symmetric

OPERATIONS: tuple[Operation, ...] = (
    cat, linear, refold, binary, select, index_select, reduction, matmul, unary, permute, stack, embedding, gram,
    softmax, layer_norm, einsum, slice_, flatten, transpose, unsqueeze, squeeze, expand, repeat, repeat_interleave,
    flip, index, triangle, split, square, by_number, with_parameter, mask, where, cast, integers, filled, conv1d,
    batch_norm, attention, cross, cross, symmetric, opaque, cat, linear, binary, refold, cat,
)  # fmt: skip
"""What is listed twice is drawn twice as often."""
