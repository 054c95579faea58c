"""Operators that move elements, and those that read or make shapes."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rankopt.importing.constants import Known, Size, Sizes, Value, integer, integers, number, tensor
from rankopt.importing.operators import Node, operator, sizes_operator


def axes_of(node: Node, given: Value | None) -> list[int] | None:
    """Axes, which were an attribute in older versions of an operator and are an input in newer ones."""
    if given is not None:
        return [int(axis) for axis in integers(given)]
    axes = node.attribute("axes")
    return None if axes is None else list(axes)


# ------------------------------------------------------------------------------------------------------ shapes


@operator("Shape")
def shape(node: Node, x: Tensor) -> Sizes:
    """The sizes, of all dims or some."""
    return Sizes(tuple(x.shape)[node.attribute("start", 0) : node.attribute("end", x.dim())])


@operator("Size")
def size(_: Node, x: Tensor) -> Sizes:
    """The number of elements."""
    return Sizes((prod(x.shape),), is_scalar=True)


@operator("ConstantOfShape", known=[0])
def constant_of_shape(node: Node, sizes: Value) -> Value:
    """One number everywhere; a short vector of integers is one of sizes, for it will be a shape."""
    fill = node.attribute("value")
    fill = torch.zeros(1) if fill is None else fill
    shape_ = integers(sizes)
    if len(shape_) == 1 and isinstance(shape_[0], int) and shape_[0] <= 8 and fill.dtype == torch.int64:
        return Sizes((int(fill.item()),) * shape_[0])
    return torch.full(shape_, fill.item(), dtype=fill.dtype)


@operator("Range", known=[0, 1, 2])
def range_(_: Node, start: Value, limit: Value, delta: Value) -> Tensor:
    """From start to limit, which may be the number of rows."""
    numbers = [number(value) for value in (start, limit, delta)]
    first, last, step = (
        integer(value) if found is None else found for found, value in zip(numbers, (start, limit, delta), strict=True)
    )
    dtype = next((value.dtype for value in map(tensor, (start, limit, delta))), torch.int64)
    return torch.arange(first, last, step, dtype=dtype)


# ------------------------------------------------------------------------------------------------------ other forms


@operator("Reshape", known=[1])
def reshape(node: Node, x: Tensor, shape_: Value) -> Tensor:
    """A zero keeps the size that stands there."""
    sizes = integers(shape_)
    if not node.attribute("allowzero", 0):
        sizes = [x.shape[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    """To a matrix, whose columns are the dims from `axis` on."""
    axis = node.attribute("axis", 1)
    axis += x.dim() if axis < 0 else 0
    if axis == 1 and x.dim() > 1:
        return x.flatten(1)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    """The dims in another order, by default reversed."""
    return x.permute(node.attribute("perm") or list(range(x.dim()))[::-1])


@operator("Squeeze", known=[1])
def squeeze(node: Node, x: Tensor, axes: Value | None = None) -> Tensor:
    """Without dims of size one: those named, or all."""
    named = axes_of(node, axes)
    if named is None:
        named = [dim for dim, size in enumerate(x.shape) if isinstance(size, int) and size == 1]
    for axis in named:
        if not isinstance(x.shape[axis], int) or x.shape[axis] != 1:
            raise ValueError(f"dim {axis} of {list(x.shape)} is not of size one")
    return x.squeeze(named) if named else x


@operator("Unsqueeze", known=[1])
def unsqueeze(node: Node, x: Tensor, axes: Value | None = None) -> Tensor:
    """With new dims of size one, at places of the result."""
    named = axes_of(node, axes) or []
    ndim = x.dim() + len(named)
    for axis in sorted(axis % ndim for axis in named):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", known=[1])
def expand(_: Node, x: Tensor, shape_: Value) -> Tensor:
    """Broadcast against a shape, in which a one keeps the size that stands there."""
    sizes: list[Size] = integers(shape_)
    ndim = max(len(sizes), x.dim())
    wanted = [1] * (ndim - len(sizes)) + sizes
    own = [1] * (ndim - x.dim()) + list(x.shape)
    sizes = [mine if isinstance(size, int) and size == 1 else size for size, mine in zip(wanted, own, strict=True)]
    return x.expand(sizes)


@operator("Tile", known=[1])
def tile(_: Node, x: Tensor, repeats: Value) -> Tensor:
    """Repeated along every dim."""
    return x.repeat(*integers(repeats))


# ------------------------------------------------------------------------------------------------------ parts


@operator("Concat")
def concat(node: Node, *xs: Tensor) -> Tensor:
    """One after the other along an axis."""
    return torch.cat(xs, dim=node.attribute("axis"))


@operator("Split", known=[1])
def split(node: Node, x: Tensor, sizes: Value | None = None) -> tuple[Tensor, ...]:
    """Parts along an axis: of given sizes, or as many as there are outputs."""
    axis = node.attribute("axis", 0)
    given = node.attribute("split") if sizes is None else integers(sizes)
    if given is None:
        chunk, last = -(-_static(x, axis) // len(node.outputs)), len(node.outputs) - 1
        given = [chunk] * last + [_static(x, axis) - chunk * last]
    return torch.split(x, given, dim=axis)


@operator("Slice", known=[1, 2, 3, 4])
def slice_(
    _: Node, x: Tensor, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Tensor:
    """Ranges of dims, which may run backwards."""
    first, last = integers(starts), integers(ends)
    named = list(range(len(first))) if axes is None else integers(axes)
    step = [1] * len(first) if steps is None else integers(steps)
    for axis, start, end, stride in zip(named, first, last, step, strict=True):
        if stride > 0:
            x = torch.ops.aten.slice.Tensor(x, axis, start, end, stride)
        else:
            places = range(*slice(start, end, stride).indices(_static(x, axis)))
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def _static(x: Tensor, axis: int) -> int:
    size_ = x.shape[axis]
    if isinstance(size_, int):
        return size_
    raise ValueError("it takes rows apart")


@operator("Pad", known=[1, 2, 3])
def pad(node: Node, x: Tensor, pads: Value, fill: Value | None = None, axes: Value | None = None) -> Tensor:
    """Elements before and after, along some dims."""
    amounts = integers(pads)
    named = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in integers(axes)]
    around = {axis: (amounts[i], amounts[i + len(named)]) for i, axis in enumerate(named)}
    mode = node.attribute("mode", b"constant").decode()
    if mode != "constant":
        for axis, (before, after) in around.items():
            if before or after:
                places = _beyond(mode, _static(x, axis), before, after)
                x = x.index_select(axis, torch.tensor(places, dtype=torch.int64))
        return x
    flat = [amount for axis in reversed(range(x.dim())) for amount in around.get(axis, (0, 0))]
    if fill is None:
        return F.pad(x, flat)
    if not isinstance(fill, Known) or fill.array.size != 1:
        raise ValueError("the padding is computed")
    return F.pad(x, flat, value=fill.array.item())


def _beyond(mode: str, size_: int, before: int, after: int) -> list[int]:
    """The places that stand in a dim which is padded with its own elements."""
    places = range(-before, size_ + after)
    if mode == "edge":
        return [min(max(place, 0), size_ - 1) for place in places]
    if mode == "wrap":
        return [place % size_ for place in places]
    period = max(2 * size_ - 2, 1)
    return [min(place % period, period - place % period) for place in places]


@operator("Trilu", known=[1])
def trilu(node: Node, x: Tensor, diagonal: Value | None = None) -> Tensor:
    """The upper or the lower triangle."""
    offset = 0 if diagonal is None else integer(diagonal)
    return torch.triu(x, offset) if node.attribute("upper", 1) else torch.tril(x, offset)


# ------------------------------------------------------------------------------------------------------ of sizes


@sizes_operator("Gather")
def sizes_gather(_: Node, x: Sizes, places: Sizes) -> Sizes | None:
    """Some sizes of a shape."""
    if x.is_scalar:
        return None
    return Sizes(tuple(x.items[place] for place in places.items), places.is_scalar)


@sizes_operator("Concat")
def sizes_concat(_: Node, *xs: Sizes) -> Sizes | None:
    """A shape put together."""
    return None if any(x.is_scalar for x in xs) else Sizes(tuple(item for x in xs for item in x.items))


@sizes_operator("Slice")
def sizes_slice(
    _: Node, x: Sizes, starts: Sizes, ends: Sizes, axes: Sizes | None = None, steps: Sizes | None = None
) -> Sizes | None:
    """A range of a shape."""
    if x.is_scalar or not all(isinstance(item, int) for item in (*starts.items, *ends.items)):
        return None
    return Sizes(x.items[slice(starts.items[0], ends.items[0], None if steps is None else steps.items[0])])


@sizes_operator("Unsqueeze", "Squeeze", "Reshape", "Flatten")
def sizes_reshape(node: Node, x: Sizes, argument: Sizes | None = None) -> Sizes | None:
    """A size as a vector of one, and back."""
    if node.op == "Squeeze":
        return Sizes(x.items, is_scalar=True) if len(x.items) == 1 else x if axes_free(node, argument) else None
    if node.op == "Reshape":
        assert argument is not None
        return Sizes(x.items, is_scalar=not argument.items) if len(argument.items) <= 1 else None
    return Sizes(x.items) if node.op == "Unsqueeze" and x.is_scalar else None


def axes_free(node: Node, argument: Sizes | None) -> bool:
    """Whether no axis is named."""
    return argument is None and node.attribute("axes") is None


@sizes_operator("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def sizes_reduce(node: Node, x: Sizes, _: Sizes | None = None) -> Sizes:
    """The number of elements of a shape, or of a part of it."""
    compute: dict[str, Any] = {"ReduceProd": prod, "ReduceSum": sum, "ReduceMax": max, "ReduceMin": min}
    return Sizes((compute[node.op](x.items),), is_scalar=not node.attribute("keepdims", 1))


@sizes_operator("Split")
def sizes_split(node: Node, x: Sizes, sizes: Sizes | None = None) -> tuple[Sizes, ...] | None:
    """A shape taken apart."""
    given = node.attribute("split") if sizes is None else sizes.items
    lengths = given or [len(x.items) // len(node.outputs)] * len(node.outputs)
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return tuple(Sizes(x.items[start : start + length]) for start, length in zip(starts, lengths, strict=True))
