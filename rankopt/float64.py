"""The truth that scores are measured against: a captured graph evaluated in float64.

Whatever dtype a graph was captured in, every floating value is computed in float64. The graph itself is left
as it is; three things change while it runs:

- a stored tensor (weight, constant, input) is widened when an operator first computes with it, and given back
  after its last use. Rows are looked up in the stored dtype and widened then: no embedding table is copied;
- a floating dtype that an operator names (`to(float32)`, `zeros(dtype=...)`, `softmax(dtype=...)`) means
  float64, a complex one complex128; integer and bool dtypes mean themselves;
- a result that torch would give the default dtype (the quotient of two integers, `full` without a dtype) is
  float64.

Numbers in the graph are not touched: `masked_fill(mask, -3.4e38)` fills with that very number.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils import _pytree as pytree

from rankopt.errors import InputError, RankoptError

aten = torch.ops.aten

Keep = Callable[[str, Tensor], None]


def run_float64(
    graph_module: fx.GraphModule, inputs: Mapping[str, Tensor], *, keep: Keep | None = None
) -> list[Tensor]:
    """Evaluate a functional ATen graph in float64; return its outputs, flattened in the order of the graph.

    `inputs` gives a value, of the dtype that is served, for every placeholder by its name: weights as well as
    the inputs of the model. `keep(name, value)` is called after every operator whose result is a tensor, in
    the order of the graph; a value that is only a view of a stored tensor comes in the stored dtype, every
    other floating value in float64. Nothing but `keep` holds on to a value after its last use.

    torch's default dtype is float64 during the run and restored after it: another thread that builds tensors
    at the same time would see it. Raises InputError if a placeholder is given no value.
    """
    args = [_value_of(node, inputs) for node in graph_module.graph.find_nodes(op="placeholder")]
    with torch.no_grad(), _default_dtype(torch.float64):
        outputs = _Float64Interpreter(graph_module, keep).run(*args, enable_io_processing=False)
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def widened(dtype: torch.dtype) -> torch.dtype:
    """The dtype that stands for `dtype` in a float64 run."""
    if dtype.is_complex:
        return torch.complex128
    return torch.float64 if dtype.is_floating_point else dtype


class _Float64Interpreter(fx.Interpreter):
    """Runs a graph; its environment keeps tensors as they are stored until something computes with them."""

    def __init__(self, module: nn.Module, keep: Keep | None = None) -> None:
        super().__init__(module)
        self._keep = keep

    def run_node(self, n: fx.Node) -> Any:
        if not _reads_stored(n):
            for source in n.all_input_nodes:
                self.env[source] = _widen(self.env[source])
        value = super().run_node(n)
        if self._keep is not None and n.op == "call_function" and isinstance(value, Tensor):
            self._keep(n.name, value)
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return _Float64Subgraph(value) if isinstance(value, fx.GraphModule) else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        special = _special(target)
        if special is not None:
            return special(target, *args, **kwargs)
        if not isinstance(target, HigherOrderOperator):  # autocast takes no float64, and leaves it alone
            args, kwargs = pytree.tree_map_only(torch.dtype, widened, (args, kwargs))
        return super().call_function(target, args, kwargs)


class _Float64Subgraph:
    """The body of a higher-order operator (autocast, no_grad, cond), in float64 like the graph around it."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module

    def __call__(self, *args: Any) -> Any:
        return _Float64Interpreter(self._module).run(*args, enable_io_processing=False)


def _reads_stored(n: fx.Node) -> bool:
    """Whether a node takes its operands as they are stored: it moves values or reads shapes, rounding none.

    `expand` is a view, too, but to widen its result would cost the broadcast: its operand is widened instead.
    """
    if n.op != "call_function":
        return False
    if isinstance(n.target, HigherOrderOperator) or n.target is operator.getitem:
        return True
    if not isinstance(n.target, OpOverload):
        return False
    packet = n.target.overloadpacket
    return (
        _special(n.target) is not None or packet in _SHAPE_READERS or (n.target.is_view and packet is not aten.expand)
    )


def _widen(value: Any) -> Any:
    """The value in float64 or complex128; a view stays a view of what it was where nothing has to change."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(widened(tensor.dtype)), value)


def _look_up(op: OpOverload, *args: Any, **kwargs: Any) -> Tensor:
    """embedding, index_select, gather, x[index]: pick in the stored dtype, widen what was picked."""
    picked: Tensor = op(*args, **kwargs)
    return picked.to(widened(picked.dtype))


def _embedding_bag(
    op: OpOverload,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = -1,
) -> Any:
    """The bag over a table that holds no more than the rows in use.

    The fourth result (the rows of the maxima, for the backward pass) counts rows of that smaller table.
    """
    padding = -1 if padding_idx is None else padding_idx
    if padding < 0 and padding_idx is not None and op is aten.embedding_bag.padding_idx:
        padding += weight.shape[0]  # this overload counts from the end; in the others -1 means no padding
    used, inverse = indices.unique(return_inverse=True)
    found = (used == padding).nonzero()
    padding = int(found[0]) if len(found) else -1
    rows = _widen(weight.index_select(0, used))
    return aten._embedding_bag_forward_only(
        rows, inverse, offsets, False, mode, False, _widen(per_sample_weights), include_last_offset, padding
    )


def _cast(op: OpOverload, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Between floating dtypes a cast keeps what it finds: casting a stored table does not widen it."""

    def meaning(named: torch.dtype) -> torch.dtype:
        return x.dtype if x.is_floating_point() and named.is_floating_point else widened(named)

    args, kwargs = pytree.tree_map_only(torch.dtype, meaning, (args, kwargs))
    result: Tensor = op(x, *args, **kwargs)
    return result


def _cast_like(op: OpOverload, x: Tensor, other: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """type_as, to(other): the second operand gives its dtype and device only, and may be a table."""
    if x.is_floating_point() and other.is_floating_point():
        return x.to(other.device)
    return x.to(device=other.device, dtype=widened(other.dtype))


def _new(op: OpOverload, like: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """new_zeros and its kin read no value of the tensor that they are called on."""
    dtype = kwargs.pop("dtype", None) or like.dtype
    result: Tensor = op(like, *args, dtype=widened(dtype), **kwargs)
    return result


def _reinterpret(op: OpOverload, x: Tensor, dtype: torch.dtype) -> Tensor:
    """view(dtype) reads bits, which only a stored tensor has in the dtype that is meant."""
    if x.dtype == torch.float64 and dtype.itemsize != x.element_size():
        raise RankoptError(
            f"the model reads the bits of a computed value as {dtype}: in float64 it has other bits.\n"
            f"  expected: arithmetic, or view(dtype) of a weight or an input\n"
            f"  fix: replace `.view({dtype})` by a conversion of the value, `.to({dtype})`"
        )
    result: Tensor = op(x, dtype)
    return result


def _skip(op: OpOverload, *args: Any, **kwargs: Any) -> None:
    """An assertion about the dtype that was captured: it does not hold here, and is not meant to."""


# By operator, or by overload where the overloads of an operator differ.
_SPECIAL: dict[Any, Callable[..., Any]] = {
    aten.embedding: _look_up,
    aten.index_select: _look_up,
    aten.gather: _look_up,
    aten.index: _look_up,
    aten.embedding_bag: _embedding_bag,
    aten._embedding_bag: _embedding_bag,
    aten._embedding_bag_forward_only: _embedding_bag,
    aten.to: _cast,
    aten._to_copy: _cast,
    aten.to.other: _cast_like,
    aten.type_as: _cast_like,
    aten.view.dtype: _reinterpret,
    aten.new_zeros: _new,
    aten.new_ones: _new,
    aten.new_full: _new,
    aten.new_empty: _new,
    aten._assert_tensor_metadata: _skip,
}

_SHAPE_READERS = {aten.sym_size, aten.sym_numel, aten.sym_stride}


def _special(target: Any) -> Callable[..., Any] | None:
    return _SPECIAL.get(target) or _SPECIAL.get(getattr(target, "overloadpacket", None))


def _value_of(placeholder: fx.Node, inputs: Mapping[str, Tensor]) -> Tensor:
    if placeholder.name in inputs:
        return inputs[placeholder.name]
    raise InputError(
        f"the graph reads '{placeholder.name}', for which no value was given.\n"
        f"  given: {', '.join(inputs) or 'nothing'}\n"
        f"  fix: give a tensor for every placeholder, weights included, by the name of its node"
    )


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
