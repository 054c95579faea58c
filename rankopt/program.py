"""The program that is being written: a hash-consed graph of ATen calls.

Rules never compute anything; they ask `Program.call` for an expression and get an `Expr`, a node of a graph that grows
as the model is interpreted. Three properties do most of the compiler's classical work:

- the same call on the same operands is the same `Expr` (common subexpressions exist once, by construction);
- an `Expr` that no output reaches is never emitted (dead code does not exist, and trying an alternative costs nothing);
- every `Expr` knows its `Stage`, the earliest moment at which it can run, as the join of its operands' stages.

Sizes that count candidates are `Rows(k)`; everything else is an int.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rankopt.axes import Rows, Shape, Size
from rankopt.expressions import Expr, Leaf, Origin, Stage, operands, replaced

aten = torch.ops.aten


def _key(value: Any) -> Any:
    """A hashable stand-in for an argument: 1, 1.0 and True differ, and so do -0.0 and 0.0."""
    if isinstance(value, Expr):
        return ("%", value.serial)
    if isinstance(value, tuple | list):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict):
        return tuple(sorted((name, _key(item)) for name, item in value.items()))
    return (type(value).__name__, repr(value))


@dataclass(slots=True)
class Program:
    """A growing graph of expressions. `origin` labels what is built from now on."""

    origin: Origin = field(default_factory=Origin)
    constants: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    _integers: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    _memo: dict[Any, Expr] = field(default_factory=dict[Any, Expr])
    _row_source: tuple[Expr, int] | None = None

    # -------------------------------------------------------------------------------------------------- leaves

    def input(self, name: str, shape: Shape, dtype: torch.dtype, stage: Stage) -> Expr:
        """A tensor of the request: of its context (`Stage.CONTEXT`) or of its targets (`Stage.CANDIDATE`)."""
        expr = self._make(Leaf.INPUT, (name, int(stage)), {}, shape, dtype, stage, frozenset([name]))
        for dim, size in enumerate(shape):
            if isinstance(size, Rows) and size.times == 1 and self._row_source is None:
                self._row_source = (expr, dim)
        return expr

    def weight(self, name: str, tensor: torch.Tensor) -> Expr:
        """A parameter or buffer of the model, by its original name."""
        if not tensor.dtype.is_floating_point:
            self._integers[name] = tensor
        return self._make(Leaf.WEIGHT, (name,), {}, tuple(tensor.shape), tensor.dtype, Stage.WEIGHT, frozenset())

    def constant(self, array: np.ndarray[Any, Any] | torch.Tensor) -> Expr:
        """A small tensor that the compiler made, such as an index. Equal contents are one expression."""
        tensor = torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array
        raw = tensor.detach().contiguous()
        data = raw.view(torch.uint8) if raw.ndim else raw.reshape(1).view(torch.uint8)
        key = (Leaf.CONSTANT, str(tensor.dtype), tuple(tensor.shape), data.numpy().tobytes())
        if key not in self._memo:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = raw
            shape = tuple(tensor.shape)
            expr = self._make(Leaf.CONSTANT, (name,), {}, shape, tensor.dtype, Stage.WEIGHT, frozenset())
            self._memo[key] = expr
        return self._memo[key]

    def literal(self, expr: Expr) -> torch.Tensor | None:
        """The numbers of an integer weight, or of a constant, as they are known when compiling."""
        if expr.target is Leaf.WEIGHT:
            return self._integers.get(expr.args[0])
        return self.constants[expr.args[0]] if expr.target is Leaf.CONSTANT else None

    def number(self, value: float, dtype: torch.dtype) -> Expr:
        """A constant tensor `[]`. It is kept in double precision and rounded to `dtype` where it is used, so that a run
        in float64 computes with 0.1 and not with the float32 that is nearest to it."""
        if not dtype.is_floating_point:
            return self.constant(torch.tensor(value, dtype=dtype))
        exact = self.constant(torch.tensor(value, dtype=torch.float64))
        if dtype == torch.float64:
            return exact
        return self.call(aten._to_copy.default, exact, shape=(), out=dtype, dtype=dtype)

    def adopt(self, exprs: Iterable[Expr], constants: Mapping[str, torch.Tensor]) -> dict[int, Expr]:
        """The expressions of another program, which are in order, in this one; by their serials there.

        What two programs have in common is one expression here.
        """
        own: dict[int, Expr] = {}
        for expr in exprs:
            self.origin = expr.origin
            if expr.target is Leaf.CONSTANT:
                own[expr.serial] = self.constant(constants[expr.args[0]])
                continue
            own[expr.serial] = self.again(expr, own)
        return own

    def again(self, expr: Expr, own: Mapping[int, Expr]) -> Expr:
        """The call that `expr` is, on equal operands: those that `own` has by the serials of its own."""
        args, kwargs = replaced((expr.args, expr.kwargs), own)
        return self._make(expr.target, args, kwargs, expr.shape, expr.dtype, expr.stage, expr.inputs)

    # -------------------------------------------------------------------------------------------------- calls

    def call(
        self,
        target: Callable[..., Any],
        *args: Any,
        shape: Shape | None,
        out: torch.dtype,
        **kwargs: Any,
    ) -> Expr:
        """The expression `target(*args, **kwargs)`, whose result has `shape` and the element type `out`."""
        used = list(operands((args, kwargs)))
        stage = max((expr.stage for expr in used), default=Stage.WEIGHT)
        inputs = frozenset[str]().union(*(expr.inputs for expr in used))
        return self._make(target, args, kwargs, shape, out, stage, inputs)

    def _make(
        self,
        target: Callable[..., Any] | Leaf,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        shape: Shape | None,
        dtype: torch.dtype,
        stage: Stage,
        inputs: frozenset[str],
    ) -> Expr:
        key = (target, _key(args), _key(kwargs))
        if key not in self._memo:
            serial = len(self._memo)
            self._memo[key] = Expr(serial, target, args, kwargs, shape, dtype, stage, inputs, self.origin)
        return self._memo[key]

    def row_count(self, times: int = 1) -> Expr:
        """The scalar `times * N`, read off a target input."""
        if self._row_source is None:
            raise ValueError("no target input has rows")
        source, dim = self._row_source
        count = self.call(aten.sym_size.int, source, dim, shape=None, out=torch.int64)
        if times == 1:
            return count
        return self.call(operator.mul, count, times, shape=None, out=torch.int64)

    def size(self, size: Size) -> Any:
        """A size as an argument of a call: an int, or the scalar expression for a multiple of N."""
        return self.row_count(size.times) if isinstance(size, Rows) else size

    # -------------------------------------------------------------------------------------------------- data movement

    def view(self, x: Expr, shape: Sequence[Size]) -> Expr:
        """`reshape`; the dim that counts rows is left for the run time to find (`-1`).

        Reshapes compose, but a law's takes in none of the model's own: that one may mix rows, which its origin says.
        """
        if tuple(shape) == x.dims:
            return x
        if x.target is aten.reshape.default and (x.origin.rule != "opaque" or self.origin.rule == "opaque"):
            return self.view(x.args[0], shape)
        sizes = [-1 if isinstance(size, Rows) else size for size in shape]
        if sizes.count(-1) > 1:
            sizes = [self.size(size) for size in shape]
        return self.call(aten.reshape.default, x, sizes, shape=tuple(shape), out=x.dtype)

    def permute(self, x: Expr, order: Sequence[int]) -> Expr:
        """`permute`; permutations compose, and the identity is nothing."""
        if x.target is aten.permute.default:
            inner = [dim % len(order) for dim in x.args[1]]  # a permute of the model's own may count from the back
            return self.permute(x.args[0], [inner[dim] for dim in order])
        if list(order) == sorted(order):
            return x
        shape = tuple(x.dims[dim] for dim in order)
        return self.call(aten.permute.default, x, list(order), shape=shape, out=x.dtype)

    def expand(self, x: Expr, shape: Sequence[Size]) -> Expr:
        """Broadcast to `shape`, physically a stride of zero."""
        if tuple(shape) == x.dims:
            return x
        sizes = [-1 if new == old else self.size(new) for new, old in zip(shape, x.dims, strict=True)]
        return self.call(aten.expand.default, x, sizes, shape=tuple(shape), out=x.dtype)

    def contiguous(self, x: Expr) -> Expr:
        """A copy in the order of the dims."""
        return self.call(aten.clone.default, x, shape=x.shape, out=x.dtype, memory_format=torch.contiguous_format)

    def index_select(self, x: Expr, dim: int, index: np.ndarray[Any, Any]) -> Expr:
        """The places `index` of `dim`: nothing, a slice, or a gather; gathers of gathers are one."""
        base, places = self.places(x, dim)
        places = places[index]
        if is_range(index) and not is_range(places):
            base, places = x, index  # a view of what was gathered
        size, count = base.dims[dim], len(places)
        shape = (*base.dims[:dim], count, *base.dims[dim + 1 :])
        if is_range(places):
            first = int(places[0])
            if count == size:
                return base
            return self.call(aten.slice.Tensor, base, dim, first, first + count, shape=shape, out=x.dtype)
        chosen = self.constant(places.astype(np.int64))
        return self.call(aten.index_select.default, base, dim, chosen, shape=shape, out=x.dtype)

    def places(self, x: Expr, dim: int) -> tuple[Expr, np.ndarray[Any, Any]]:
        """The tensor from which `dim` of `x` was gathered, and the places: `x` itself and all of them if it was not."""
        places = np.arange(_int(x.dims[dim]), dtype=np.int64)
        while x.args[1:2] == (dim,):
            if x.target is aten.index_select.default and x.args[2].target is Leaf.CONSTANT:
                places = self.constants[x.args[2].args[0]].numpy()[places]
            elif x.target is aten.slice.Tensor and len(x.args) == 4 and isinstance(x.args[2], int) and x.args[2] >= 0:
                places = places + x.args[2]
            else:
                break
            x = x.args[0]
        return x, places

    def cat(self, xs: Sequence[Expr], dim: int) -> Expr:
        """Concatenation along `dim`, of which no operand counts rows."""
        if len(xs) == 1:
            return xs[0]
        total = sum(_int(x.dims[dim]) for x in xs)
        shape = (*xs[0].dims[:dim], total, *xs[0].dims[dim + 1 :])
        if dim == 0 and (sources := reshaped(xs)):
            return self.view(self.cat(sources, 0), shape)  # one reshape of all instead of one each
        return self.call(aten.cat.default, list(xs), dim, shape=shape, out=xs[0].dtype)

    def stack(self, xs: Sequence[Expr], dim: int, joined: bool = False) -> Expr:
        """`stack`, `dim` counted from the front; `joined`: as the view of a concatenation, where there is one."""
        first = xs[0]
        if (
            joined
            and dim < len(first.dims)
            and not isinstance(first.dims[dim], Rows)
            and len({x.dtype for x in xs}) == 1
        ):
            return self.view(self.cat(xs, dim), (*first.dims[:dim], len(xs), *first.dims[dim:]))
        shape = (*first.dims[:dim], len(xs), *first.dims[dim:])
        return self.call(aten.stack.default, list(xs), dim, shape=shape, out=first.dtype)

    # -------------------------------------------------------------------------------------------------- arithmetic

    def pointwise(self, target: Callable[..., Any], *args: Any, out: torch.dtype | None = None, **kw: Any) -> Expr:
        """An elementwise call; shapes broadcast as torch's do. `out` defaults to the promoted type of the operands."""
        tensors = list(operands((args, kw)))
        shape = broadcast_shape([tensor.dims for tensor in tensors])
        if out is None:
            out = tensors[0].dtype
            for tensor in tensors[1:]:
                out = torch.promote_types(out, tensor.dtype)
        return self.call(target, *args, shape=shape, out=out, **kw)

    def mul(self, x: Expr, y: Expr | float) -> Expr:
        """`x * y`."""
        return self.pointwise(aten.mul.Tensor, x, y) if isinstance(y, Expr) else self.scale(x, y)

    def add(self, x: Expr, y: Expr) -> Expr:
        """`x + y`."""
        return self.pointwise(aten.add.Tensor, x, y)

    def sub(self, x: Expr, y: Expr) -> Expr:
        """`x - y`."""
        return self.pointwise(aten.sub.Tensor, x, y)

    def scale(self, x: Expr, factor: float) -> Expr:
        """`x * factor`, of the dtype of x."""
        if factor == 1.0:
            return x
        if factor == -1.0:
            return self.pointwise(aten.neg.default, x)
        return self.pointwise(aten.mul.Scalar, x, factor)

    def reduce(self, target: Callable[..., Any], x: Expr, dims: Sequence[int]) -> Expr:
        """`sum`, `mean` or `amax` over `dims`, which disappear."""
        shape = tuple(size for dim, size in enumerate(x.dims) if dim not in dims)
        return self.call(target, x, sorted(dims), shape=shape, out=x.dtype)


def reshaped(xs: Sequence[Expr]) -> list[Expr]:
    """The tensors of which all of `xs` are reshapes, if they can be concatenated as they are; else none."""
    sources = [x.args[0] for x in xs if x.target is aten.reshape.default]
    if len(sources) < len(xs) or any(isinstance(size, Rows) for source in sources for size in source.dims):
        return []
    return sources if len({source.dims[1:] for source in sources}) == 1 and sources[0].dims else []


def _int(size: Size) -> int:
    if isinstance(size, Rows):
        raise TypeError("the dim counts rows")
    return size


def window(start: int | None = None, end: int | None = None, step: int = 1) -> slice:
    """The places that `aten.slice.Tensor` takes, by its arguments behind the dim, each of which may be left out."""
    return slice(start, end, step)


def is_range(places: np.ndarray[Any, Any]) -> bool:
    """Whether places, of which there is at least one, follow each other."""
    return bool(len(places)) and np.array_equal(places, np.arange(places[0], places[0] + len(places)))


def broadcast_shape(shapes: Iterable[Shape]) -> Shape:
    """The shape to which `shapes` broadcast; a multiple of N only ever meets itself or 1."""
    shapes = list(shapes)
    ndim = max(len(shape) for shape in shapes)
    result: list[Size] = []
    for dim in range(-ndim, 0):
        present = [shape[dim] for shape in shapes if -dim <= len(shape) and shape[dim] != 1]
        result.append(present[0] if present else 1)
    return tuple(result)
