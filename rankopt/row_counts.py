"""Capture of models that use the number of rows as a Python int: `zeros(len(x), 8)`, `arange(int(len(x)))`.

Such a program is traced at three prime row counts. The traces must agree node by node; an int that differs
must be a*R + b at all three, and becomes that expression of the row count R; a baked constant that differs
must repeat one row, and becomes that row, expanded. The result is compared with the model at two more counts.

    at 7 rows              at 11 rows             at 13 rows             aligned
    zeros([7, 8])          zeros([11, 8])         zeros([13, 8])         zeros([R, 8])
    view(x, [21, 2])       view(x, [33, 2])       view(x, [39, 2])       view(x, [3 * R, 2])

Three counts, not two, because 49 at 7 rows and 121 at 11 might be 18 * R - 77 as well as R * R.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from rankopt.calls import row_counts_unlike, with_rows
from rankopt.diagnosis import ROWS_AS_INT, explain, line_of_node, refusal
from rankopt.errors import CaptureError

aten = torch.ops.aten

_IN_PLACE = re.compile(r"[a-z]\w*[a-z0-9]_|__i[a-z]+__")  # add_, __iadd__


class AlignedFunction(nn.Module):
    """Runs an aligned graph node by node, so that a trace of it keeps the lines of the model."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__()
        self.training = False
        self.graph_module = graph_module

    def forward(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """The outputs for these rows, any number of them."""
        with preserve_node_meta():
            outputs: tuple[Tensor, ...] = fx.Interpreter(self.graph_module).run(*rows)
        return outputs


def capture_at_row_counts(function: nn.Module, examples: Mapping[str, Tensor]) -> AlignedFunction:
    """The function of rows as one graph for all row counts, ready to be exported.

    Raises CaptureError where the traces differ in a way that cannot be proven to follow the number of rows.
    """
    sizes = [tensor.shape for tensor in (*examples.values(), *function.parameters(), *function.buffers())]
    traced = row_counts_unlike(sizes, 3)
    # Each trace sees other rows first, so that a value read from the data differs between them.
    traces = [_trace(function, with_rows(examples, rows, shift), rows) for shift, rows in enumerate(traced)]
    counted = next(index for index, tensor in enumerate(examples.values()) if tensor.dim())
    aligned = AlignedFunction(_Alignment(traces, counted).align())
    for rows in (2, 1009):  # fewer than were traced, and many more
        _compare(function, aligned, tuple(with_rows(examples, rows, shift=1).values()), rows)
    return aligned


@dataclass(frozen=True, slots=True)
class _Trace:
    """One trace: its number of rows and its graph, with the tensors that the graph reads by attribute."""

    rows: int
    module: fx.GraphModule

    def nodes(self) -> list[fx.Node]:
        return list(self.module.graph.nodes)

    def tensor(self, node: fx.Node) -> Tensor:
        tensor: Tensor = getattr(self.module, str(node.target))
        return tensor


@dataclass(slots=True)
class _Alignment:
    """Several traces as they are merged, node by node, into one graph."""

    traces: Sequence[_Trace]
    counted: int  # index of a placeholder whose dim 0 counts rows
    graph: fx.Graph = field(default_factory=fx.Graph)
    tensors: dict[str, Tensor] = field(default_factory=dict)  # attribute -> tensor, for the merged graph
    made: dict[fx.Node, fx.Node] = field(default_factory=dict)  # node of any trace -> its merged node
    placeholders: list[fx.Node] = field(default_factory=list)
    row_count: fx.Node | None = None

    def align(self) -> fx.GraphModule:
        """The merged graph. Raises CaptureError at the first node that does not follow the number of rows."""
        graphs = [trace.nodes() for trace in self.traces]
        for nodes in zip(*graphs, strict=False):
            merged = self._merge(nodes)
            merged.meta["stack_trace"] = nodes[0].meta.get("stack_trace")
            self.made.update(dict.fromkeys(nodes, merged))
        if len({len(nodes) for nodes in graphs}) > 1:
            raise refusal(ROWS_AS_INT, None, "the number of operators changes with it")
        return fx.GraphModule(self.tensors, self.graph)

    def _merge(self, nodes: Sequence[fx.Node]) -> fx.Node:
        first = nodes[0]
        if len({(node.op, node.target if node.op != "get_attr" else None) for node in nodes}) > 1:
            raise refusal(ROWS_AS_INT, line_of_node(first), "other operators run at other row counts")
        if first.op == "placeholder":
            self.placeholders.append(self.graph.placeholder(first.name))
            return self.placeholders[-1]
        if first.op == "get_attr":
            tensors = [trace.tensor(node) for trace, node in zip(self.traces, nodes, strict=True)]
            return self._merge_tensors(tensors, first)
        args, kwargs = self._merge_arguments(nodes)
        return self.graph.create_node(first.op, first.target, args, kwargs, first.name)

    def _merge_arguments(self, nodes: Sequence[fx.Node]) -> tuple[Any, Any]:
        flat = [pytree.tree_flatten_with_path((node.args, node.kwargs)) for node in nodes]
        if len({str(spec) for _, spec in flat}) > 1:
            raise refusal(ROWS_AS_INT, line_of_node(nodes[0]), "a list grows with it")
        merged = []
        for leaves in zip(*(leaves for leaves, _ in flat), strict=True):
            path = leaves[0][0]
            inside_list = len(path) > 2  # args or kwargs, the argument, an element of it
            merged.append(self._merge_leaf([leaf for _, leaf in leaves], nodes[0], is_size=inside_list))
        args, kwargs = pytree.tree_unflatten(merged, flat[0][1])
        return args, kwargs

    def _merge_leaf(self, leaves: Sequence[Any], node: fx.Node, *, is_size: bool) -> Any:
        first = leaves[0]
        if isinstance(first, fx.Node):
            if len({self.made[leaf] for leaf in leaves}) > 1:
                raise refusal(ROWS_AS_INT, line_of_node(node), "an operator reads other operands")
            return self.made[first]
        if all(type(leaf) is type(first) and repr(leaf) == repr(first) for leaf in leaves):
            return first
        law = _row_law(leaves, [trace.rows for trace in self.traces])
        if law is None or (is_size and law[1] != 0):
            seen = ", ".join(f"{leaf} at {trace.rows} rows" for leaf, trace in zip(leaves, self.traces, strict=True))
            raise refusal(ROWS_AS_INT, line_of_node(node), seen)
        return self._rows(*law)

    def _rows(self, times: int, plus: int) -> fx.Node:
        """The node for `times * R + plus`."""
        if self.row_count is None:
            self.row_count = self.graph.call_function(aten.sym_size.int, (self.placeholders[self.counted], 0))
        size = self.row_count
        if times != 1:
            size = self.graph.call_function(operator.mul, (times, size))
        return self.graph.call_function(operator.add, (size, plus)) if plus else size

    def _merge_tensors(self, tensors: Sequence[Tensor], node: fx.Node) -> fx.Node:
        if all(_same(tensor, tensors[0]) for tensor in tensors):
            return self.graph.get_attr(self._attribute(tensors[0]))
        found = _repeated_row(tensors, [trace.rows for trace in self.traces])
        if found is None:
            raise refusal(ROWS_AS_INT, line_of_node(node), "a constant tensor changes with it")
        dim, row = found
        shape: list[Any] = list(row.shape)
        shape[dim] = self._rows(1, 0)
        return self.graph.call_function(aten.expand.default, (self.graph.get_attr(self._attribute(row)), shape))

    def _attribute(self, tensor: Tensor) -> str:
        for name, known in self.tensors.items():
            if known is tensor:
                return name
        name = f"tensor_{len(self.tensors)}"
        self.tensors[name] = tensor
        return name


class _Watch(TorchFunctionMode):
    """Stops a trace, which runs on real tensors, before it bakes in what it computed or changes the model."""

    READERS = (Tensor.tolist, Tensor.numpy, Tensor.__array__)

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self._weights = {id(weight) for weight in weights}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        of_weight = bool(args) and id(args[0]) in self._weights
        if func in self.READERS and not of_weight:
            raise RuntimeError(f"the values of a tensor are read by .{name}()")
        if of_weight and (name == "__setitem__" or _IN_PLACE.fullmatch(name)):
            raise RuntimeError(f"a weight is mutated by .{name}()")
        return func(*args, **(kwargs or {}))


def _trace(function: nn.Module, inputs: Mapping[str, Tensor], rows: int) -> _Trace:
    trace = make_fx(
        lambda *tensors: function(*tensors), tracing_mode="real", pre_dispatch=True, record_stack_traces=True
    )
    try:
        with _Watch((*function.parameters(), *function.buffers())):
            return _Trace(rows, trace(*inputs.values()))
    except CaptureError:
        raise
    except Exception as error:  # torch raises whatever its layers raise
        raise explain(error) from error


def _compare(function: nn.Module, aligned: nn.Module, rows: Sequence[Tensor], count: int) -> None:
    """Raises CaptureError where the aligned graph and the model differ on these rows."""
    expected = function(*(tensor.clone() for tensor in rows))  # which may change its inputs
    found = aligned(*rows)
    for truth, score in zip(expected, found, strict=True):
        if truth.shape != score.shape or not torch.allclose(truth, score, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise refusal(ROWS_AS_INT, None, f"what was seen at other row counts does not hold at {count} rows")


def _row_law(values: Sequence[Any], rows: Sequence[int]) -> tuple[int, int] | None:
    """(a, b) with value = a * rows + b at every row count, or None."""
    if not all(type(value) is int for value in values):
        return None
    times, rest = divmod(values[1] - values[0], rows[1] - rows[0])
    plus = values[0] - times * rows[0]
    holds = rest == 0 and all(value == times * count + plus for value, count in zip(values, rows, strict=True))
    return (times, plus) if holds else None


def _repeated_row(tensors: Sequence[Tensor], rows: Sequence[int]) -> tuple[int, Tensor] | None:
    """The dim that counts rows and the one row, of size 1 there, that all tensors repeat along it, if any."""
    first = tensors[0]
    for dim, size in enumerate(first.shape):
        if size != rows[0]:
            continue
        row = first.narrow(dim, 0, 1).clone()
        shapes = [(*row.shape[:dim], count, *row.shape[dim + 1 :]) for count in rows]
        if all(_same(tensor, row.expand(shape)) for tensor, shape in zip(tensors, shapes, strict=True)):
            return dim, row
    return None


def _same(tensor: Tensor, other: Tensor) -> bool:
    """Whether both are one tensor, or equal in dtype, shape and every element."""
    return tensor is other or (tensor.dtype == other.dtype and torch.equal(tensor, other))
