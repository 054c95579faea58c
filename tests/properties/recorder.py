"""Small programs written op by op: each call is run at once, and recorded as a captured graph.

Capturing a program with torch.export takes a third of a second; thousands of programs cannot afford that. A `Recorder`
runs every call on tensors with 7 and with 11 rows, reads off which sizes count rows, and notes the fx node that capture
would have made of it. It also notes the line of code, so that a program that fails can be printed and kept as a test.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch._dynamo.source import ConstantSource
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from rankopt.axes import Rows, Shape
from rankopt.capture import CapturedModel, ModelInput, Weight
from rankopt.requests import Request
from rankopt.selectors import InputRole, Role

aten = torch.ops.aten

ROW_COUNTS = (7, 11)


@cache
def _symbolic_rows() -> tuple[FakeTensorMode, Any, sympy.Symbol]:
    """One row count for all programs: the mode of its fake tensors, the SymInt, and the symbol."""
    env = ShapeEnv()
    source = ConstantSource("rows")
    symbol = env.create_symbol(ROW_COUNTS[0], source, DimDynamic.DYNAMIC, None)
    rows = env.create_symintnode(symbol, hint=ROW_COUNTS[0], source=source)
    return FakeTensorMode(shape_env=env, allow_non_fake_inputs=True), rows, rows.node.expr


@cache
def _symbolic(times: int) -> Any:
    return _symbolic_rows()[1] * times


@cache
def _fake(shape: Shape, dtype: torch.dtype) -> Tensor:
    sizes = [_symbolic(size.times) if isinstance(size, Rows) else size for size in shape]
    with _symbolic_rows()[0]:
        return torch.empty(sizes, dtype=dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Handle:
    """A value of the program: its node, its name in the printed code, its tensor at each of ROW_COUNTS."""

    node: fx.Node
    name: str
    tensors: tuple[Tensor, ...]
    shape: Shape

    @property
    def dtype(self) -> torch.dtype:
        return self.tensors[0].dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def has_rows(self) -> bool:
        return any(isinstance(size, Rows) for size in self.shape)

    def __repr__(self) -> str:
        return self.name


@dataclass(slots=True)
class Recorder:
    """A program in the making. `lines` is its code so far."""

    lines: list[str] = field(default_factory=list)
    _graph: fx.Graph = field(default_factory=fx.Graph)
    _inputs: list[ModelInput] = field(default_factory=list)
    _roles: list[InputRole] = field(default_factory=list)
    _weights: list[Weight] = field(default_factory=list)
    _ranges: dict[str, int | None] = field(default_factory=dict)
    _sizes: dict[int, fx.Node] = field(default_factory=dict)
    _generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    _last_placeholder: fx.Node | None = None
    scale: float = 1.0
    """The largest number that has been computed."""
    precision: float = torch.finfo(torch.float64).eps
    """That of the coarsest type in which anything has been computed."""

    # -------------------------------------------------------------------------------------------------- leaves

    def target(self, *shape: int, high: int | None = None) -> Handle:
        """An input [R, *shape] of the candidates; with `high`, ids below it."""
        return self._input(Role.TARGET, shape, high)

    def context(self, *shape: int, high: int | None = None) -> Handle:
        """An input [R, *shape] of the request; with `high`, ids below it."""
        return self._input(Role.CONTEXT, shape, high)

    def packed(self, columns: Sequence[int], *shape: int, high: int | None = None) -> Handle:
        """An input [R, *shape] whose `columns` are context and whose others are target."""
        return self._input(Role.PACKED, shape, high, tuple(columns))

    def _input(self, role: Role, shape: tuple[int, ...], high: int | None, columns: tuple[int, ...] = ()) -> Handle:
        name = f"x{len(self._inputs)}"
        tensors = tuple(self._draw((rows, *shape), high) for rows in ROW_COUNTS)
        node = self._placeholder(name)
        self._inputs.append(ModelInput(name, node.name, tuple(tensors[0].shape), tensors[0].dtype))
        rest = tuple(i for i in range(shape[0]) if i not in columns) if columns else ()
        self._roles.append(InputRole(name, role, columns, rest) if columns else InputRole(name, role))
        self._ranges[name] = high
        listed = [repr(list(columns))] if columns else []
        listed += [*map(str, shape), *([f"high={high}"] if high is not None else [])]
        self.lines.append(f"{name} = r.{role.name.lower()}({', '.join(listed)})")
        return self._handle(node, name, tensors)

    def weight(self, *shape: int, dtype: torch.dtype = torch.float64) -> Handle:
        """A parameter."""
        tensor = torch.randn(shape, generator=self._generator, dtype=torch.float64).to(dtype)
        listed = [*map(str, shape), *([] if dtype is torch.float64 else [f"dtype={dtype}"])]
        return self._weight(tensor, is_parameter=True, code=f"r.weight({', '.join(listed)})")

    def constant(self, values: Any) -> Handle:
        """A buffer: an index or a mask."""
        return self._weight(torch.tensor(values), is_parameter=False, code=f"r.constant({values!r})")

    def _weight(self, tensor: Tensor, *, is_parameter: bool, code: str) -> Handle:
        name = f"w{len(self._weights)}"
        node = self._placeholder(name)
        self._weights.append(Weight(name, node.name, tensor, is_parameter))
        self.lines.append(f"{name} = {code}")
        return self._handle(node, name, (tensor,) * len(ROW_COUNTS))

    def _placeholder(self, name: str) -> fx.Node:
        anchor = self._last_placeholder
        with self._graph.inserting_after(anchor) if anchor else self._graph.inserting_before():
            self._last_placeholder = self._graph.placeholder(name)
        return self._last_placeholder

    def _draw(self, shape: tuple[int, ...], high: int | None) -> Tensor:
        if high is not None:
            return torch.randint(0, high, shape, generator=self._generator)
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)

    # -------------------------------------------------------------------------------------------------- calls

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """`target(*args, **kwargs)`; a size may be `Rows(k)`. Returns a Handle, or a list of them."""
        results = [target(*_at(args, i), **_at(kwargs, i)) for i in range(len(ROW_COUNTS))]
        node = self._graph.call_function(target, self._nodes(args), self._nodes(kwargs))
        name = f"v{len(self.lines)}"
        given = [_code(arg) for arg in args] + [f"{key}={_code(value)}" for key, value in kwargs.items()]
        self.lines.append(f"{name} = r.call({', '.join([str(target), *given])})")
        if isinstance(results[0], Tensor):
            return self._handle(node, name, tuple(results))
        node.meta["val"] = [_fake(_shape(each), each[0].dtype) for each in zip(*results, strict=True)]
        items: list[Handle] = []
        for i, tensors in enumerate(zip(*results, strict=True)):
            item = self._graph.call_function(operator.getitem, (node, i))
            items.append(self._handle(item, f"{name}[{i}]", tensors))
        return items

    def _handle(self, node: fx.Node, name: str, tensors: tuple[Tensor, ...]) -> Handle:
        shape = _shape(tensors)
        node.meta["val"] = _fake(shape, tensors[0].dtype)
        if tensors[0].is_floating_point():
            self.precision = max(self.precision, torch.finfo(tensors[0].dtype).eps)
        if tensors[0].is_floating_point() and tensors[0].numel():
            self.scale = max(self.scale, float(tensors[0].nan_to_num(0, 0, 0).abs().max()))
        return Handle(node, name, tensors, shape)

    def _nodes(self, value: Any) -> Any:
        def convert(leaf: Any) -> Any:
            if isinstance(leaf, Handle):
                return leaf.node
            return self._size(leaf.times) if isinstance(leaf, Rows) else leaf

        return _mapped(convert, value)

    def _size(self, times: int) -> fx.Node:
        if times in self._sizes:
            return self._sizes[times]
        if times == 1:
            source = next(node for node in self._graph.nodes if node.name == self._inputs[0].placeholder)
            size = self._graph.call_function(aten.sym_size.int, (source, 0))
        else:
            size = self._graph.call_function(operator.mul, (self._size(1), times))
        size.meta["val"] = _symbolic(times)
        self._sizes[times] = size
        return size

    # -------------------------------------------------------------------------------------------------- results

    def finish(self, outputs: Sequence[Handle]) -> Recorded:
        """The program that returns `outputs`."""
        self._graph.output(tuple(handle.node for handle in outputs))
        self.lines.append(f"return [{', '.join(handle.name for handle in outputs)}]")
        examples = {item.name: torch.empty(item.shape, dtype=item.dtype) for item in self._inputs}
        captured = CapturedModel(
            fx.GraphModule({}, self._graph),
            tuple(self._inputs),
            tuple(self._weights),
            _symbolic_rows()[2],
            max_rows=None,
            examples=examples,
            call=None,  # type: ignore[arg-type]  # nobody calls the model
            out_spec=None,  # type: ignore[arg-type]
            output_constants={},
        )
        return Recorded(
            captured, tuple(self._roles), dict(self._ranges), "\n".join(self.lines), self.scale, self.precision
        )


@dataclass(frozen=True, slots=True, repr=False)
class Recorded:
    """A finished program, as capture would give it."""

    captured: CapturedModel
    roles: tuple[InputRole, ...]
    ranges: dict[str, int | None]
    code: str
    scale: float
    precision: float

    @property
    def tolerance(self) -> float:
        """The error that rounding excuses, relative to the largest number that was computed."""
        return max(1e-9, 64 * self.precision)

    def __repr__(self) -> str:
        return f"\n{self.code}\n"

    def request(self, candidates: int) -> Request:
        """A random request."""
        generator = torch.Generator().manual_seed(candidates)
        context: dict[str, Tensor] = {}
        target: dict[str, Tensor] = {}
        for item, role in zip(self.captured.inputs, self.roles, strict=True):
            for part, rows, columns in (
                (context, 1, role.context_columns),
                (target, candidates, role.target_columns),
            ):
                shape = item.shape[1:]
                if role.role is Role.PACKED:
                    shape = (len(columns), *shape[1:])
                elif (role.role is Role.CONTEXT) != (part is context):
                    continue
                high = self.ranges[item.name]
                part[item.name] = (
                    torch.randn((rows, *shape), generator=generator, dtype=torch.float64)
                    if high is None
                    else torch.randint(0, high, (rows, *shape), generator=generator)
                )
        return Request(context, target)


def _shape(tensors: Sequence[Tensor]) -> Shape:
    """The sizes that grow with the rows as `Rows(k)`. No other size is a multiple of 7 and of 11."""
    shape: list[int | Rows] = []
    for a, b in zip(tensors[0].shape, tensors[1].shape, strict=True):
        times = a // ROW_COUNTS[0]
        if a != b and (a, b) != (times * ROW_COUNTS[0], times * ROW_COUNTS[1]):
            raise ValueError(f"sizes {a} and {b} are no multiple of the number of rows")
        shape.append(a if a == b else Rows(times))
    return tuple(shape)


def _at(value: Any, i: int) -> Any:
    """The arguments with the tensors and sizes of row count number i."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, Handle):
            return leaf.tensors[i]
        return leaf.times * ROW_COUNTS[i] if isinstance(leaf, Rows) else leaf

    return _mapped(convert, value)


def _mapped(convert: Callable[[Any], Any], value: Any) -> Any:
    """The same nest of lists, tuples and dicts with its leaves converted."""
    if isinstance(value, list | tuple):
        return type(value)(_mapped(convert, item) for item in value)
    if isinstance(value, dict):
        return {name: _mapped(convert, item) for name, item in value.items()}
    return convert(value)


def _code(value: Any) -> str:
    """An argument as Python code."""
    if isinstance(value, Rows):
        return f"Rows({value.times})"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_code, value))}]"
    return str(value) if isinstance(value, torch.dtype) else repr(value)
