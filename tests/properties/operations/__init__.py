"""The ops that random programs are made of.

Each operation looks at the values that exist, chooses operands and parameters that fit, calls the op and returns the
new value; or None, where nothing fits. What is computed stays bounded, and never asks on which side of a threshold a
rounding error falls: rewriting may move the last bit of every number.
"""

from __future__ import annotations

from properties.operations.along import (
    along_one,
    attention,
    batch_norm,
    counted,
    layer_norm,
    reduction,
    rms_norm,
    softmax,
)
from properties.operations.elementwise import (
    binary,
    by_number,
    cast,
    clamp,
    compared,
    filled,
    integers,
    logic,
    mask,
    of_three,
    remainder,
    square,
    unary,
    where,
    with_parameter,
)
from properties.operations.fitting import Operation
from properties.operations.movement import (
    diagonal,
    expand,
    flatten,
    flip,
    movedim,
    padded,
    permute,
    refold,
    repeat,
    repeat_interleave,
    roll,
    squeeze,
    transpose,
    unflatten,
    unsqueeze,
    windows,
)
from properties.operations.opaque import opaque
from properties.operations.picking import (
    by_data,
    cat,
    embedding,
    from_the_back,
    gather,
    index,
    index_select,
    select,
    slice_,
    split,
    stack,
    triangle,
)
from properties.operations.products import conv1d, cross, einsum, gram, linear, matmul, rows_with_rows, symmetric
from properties.operations.writing import assigned, masked_write, placed, scattered

OPERATIONS: tuple[Operation, ...] = (
    cat, linear, refold, binary, select, index_select, reduction, matmul, unary, permute, stack, embedding, gram,
    softmax, layer_norm, einsum, slice_, flatten, transpose, unsqueeze, squeeze, expand, repeat, repeat_interleave,
    flip, index, triangle, split, square, by_number, with_parameter, mask, where, cast, integers, filled, conv1d,
    batch_norm, attention, cross, cross, symmetric, opaque, cat, linear, binary, refold, cat,
    roll, movedim, unflatten, windows, padded, diagonal, from_the_back, gather, by_data, assigned, masked_write, placed,
    scattered, clamp, compared, logic, remainder, of_three, along_one, along_one, counted, rms_norm, rows_with_rows,
    cast, opaque,
)  # fmt: skip
"""What is listed twice is drawn twice as often."""
