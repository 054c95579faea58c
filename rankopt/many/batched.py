"""Calls with a leading request dim: `batched(f)(x)[b] == f(x[b])`.

What a program consists of has a spelling of its own, one call to one call: dims move up by one, two matrices become two
batches of matrices. Any other op goes through `torch.func.vmap`, which has a rule for nearly all of ATen.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from rankopt.axes import Rows
from rankopt.cost import is_pointwise
from rankopt.expressions import Expr
from rankopt.program import aten


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a node of a many-request graph when it is made; `rankopt.eager` asks for it."""

    shape: tuple[Any, ...] | None
    dtype: torch.dtype

    @property
    def dims(self) -> tuple[Any, ...]:
        """The shape, of a node that is one tensor."""
        assert self.shape is not None
        return self.shape


REQUESTS = "B"
"""The number of requests, as a size in a `Kind`."""


class Cannot(Exception):
    """The calls of several requests cannot be one: the reason, for the report."""


@dataclass(slots=True)
class Emitter:
    """A graph in the making. `requests` and `longest` are the nodes of B and of the rows that each request has."""

    graph: fx.Graph
    requests: fx.Node | None = None
    longest: fx.Node | None = None

    def call(self, target: Any, *args: Any, kind: Kind | Expr | None = None, **kwargs: Any) -> fx.Node:
        """One more node."""
        node = self.graph.call_function(target, args, kwargs)
        if kind is not None:
            node.meta["expr"] = kind
        return node

    def sizes(self, shape: Sequence[Any]) -> list[Any]:
        """A shape as an argument: rows are those of one request."""
        return [self._rows(size.times) if isinstance(size, Rows) else size for size in shape]

    def _rows(self, times: int) -> fx.Node:
        assert self.longest is not None
        return self.longest if times == 1 else self.call(operator.mul, self.longest, times)


@dataclass(frozen=True, slots=True)
class Given:
    """An operand of a batched call: its node, the tensor of one request that it stands for, whether B leads it."""

    node: fx.Node
    expr: Expr
    batched: bool


def batched(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node:
    """The call `expr` on arguments in which every operand is a `Given`, at least one of them batched."""
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs), is_leaf=_is_given) if isinstance(leaf, Given)]
    law = LAWS.get(expr.target)
    if law is None and is_pointwise(expr.target):
        law = _pointwise
    found = None
    if law is not None and expr.shape is not None and all(x.expr.shape is not None for x in given):
        found = law(e, expr, args, kwargs)
    return found if found is not None else _by_vmap(e, expr, args, kwargs)


def is_random(expr: Expr) -> bool:
    """Whether a call draws random numbers; a dropout of zero does not."""
    target = expr.target
    if target is aten.scaled_dot_product_attention.default:
        return bool(expr.args[4:5] not in ((), (0.0,)) or expr.kwargs.get("dropout_p", 0.0))
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


def kind_of(expr: Expr) -> Kind:
    """The kind of a batched node."""
    return Kind(None if expr.shape is None else (REQUESTS, *expr.shape), expr.dtype)


def vmapped(target: Callable[..., Any], in_dims: list[int | None], args: Any, kwargs: Any) -> Any:
    """`target` on tensors of which those with an in_dim have a leading request dim."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def one_request(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        inner_args, inner_kwargs = pytree.tree_unflatten(filled, spec)
        return target(*inner_args, **inner_kwargs)

    return torch.func.vmap(one_request, in_dims=tuple(in_dims))(*(leaves[place] for place in places))


def _by_vmap(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node:
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs), is_leaf=_is_given) if isinstance(leaf, Given)]
    if expr.target is aten.index_put.default and any(x.batched and x.expr.dtype is torch.bool for x in given[1:-1]):
        raise Cannot("values are written where a mask of the request says so")
    in_dims = [0 if x.batched else None for x in given]
    return e.call(vmapped, expr.target, in_dims, list(_nodes(args)), _nodes(kwargs), kind=kind_of(expr))


def _is_given(leaf: Any) -> bool:
    return isinstance(leaf, Given)


def _nodes(arguments: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.node if isinstance(leaf, Given) else leaf, arguments, is_leaf=_is_given)


# ------------------------------------------------------------------------------------------------------ laws


def _pointwise(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    """Operands broadcast from the back, so the request dim of the shorter ones has to be moved to the front."""
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs), is_leaf=_is_given) if isinstance(leaf, Given)]
    if any(x.batched and not x.expr.dims and x.expr.dtype != y.expr.dtype for x in given for y in given):
        return None  # a tensor without dims has less to say about the result's type than one with
    ndim = len(expr.dims)
    align = functools.partial(_aligned, e, ndim)
    return e.call(
        expr.target,
        *pytree.tree_map(align, tuple(args), is_leaf=_is_given),
        kind=kind_of(expr),
        **pytree.tree_map(align, dict(kwargs), is_leaf=_is_given),
    )


def _aligned(e: Emitter, ndim: int, leaf: Any) -> Any:
    if not isinstance(leaf, Given):
        return leaf
    node, dims = leaf.node, leaf.expr.dims
    if not leaf.batched:
        return node
    for missing in range(ndim - len(dims)):
        shape = (REQUESTS, *[1] * (missing + 1), *dims)
        node = e.call(aten.unsqueeze.default, node, 1, kind=Kind(shape, leaf.expr.dtype))
    return node


def _first(args: Any) -> Given | None:
    """The first operand, where it is the only one and has dims."""
    others = [leaf for leaf in pytree.tree_leaves(args[1:], is_leaf=_is_given) if isinstance(leaf, Given)]
    x = args[0]
    return x if isinstance(x, Given) and x.batched and x.expr.dims and not others else None


def _reshape(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    if len(args) != 2 or not isinstance(args[0], Given) or not args[0].batched:
        return None
    return e.call(aten.reshape.default, args[0].node, [e.requests, *e.sizes(expr.dims)], kind=kind_of(expr))


def _expand(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    x = args[0]
    if not x.batched:
        return None
    node = _aligned(e, len(expr.dims), x)
    return e.call(aten.expand.default, node, [-1, *e.sizes(expr.dims)], kind=kind_of(expr))


def _permute(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    x = _first(args)
    if x is None:
        return None
    order = [0, *(dim % len(x.expr.dims) + 1 for dim in args[1])]
    return e.call(aten.permute.default, x.node, order, kind=kind_of(expr))


def _dims_at(*positions: int) -> Callable[[Emitter, Expr, Any, Any], fx.Node | None]:
    """An op on one tensor with dims at `positions`, each one dim or a list: they move up by one."""

    def law(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
        x = _first(args)
        if x is None or kwargs or len(args) <= max(positions):
            return None
        ndim = len(x.expr.dims) + (expr.target is aten.unsqueeze.default)
        moved = list(_nodes(args))
        for position in positions:
            dim = args[position]
            if dim is None or dim == []:
                return None
            moved[position] = [d % ndim + 1 for d in dim] if isinstance(dim, list | tuple) else dim % ndim + 1
        return e.call(expr.target, *moved, kind=kind_of(expr))

    return law


def _joined(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    """cat and stack. What is the same for all requests, such as a token that a model learns, is a view of each."""
    if kwargs or e.requests is None or not all(x.expr.dims or expr.target is aten.stack.default for x in args[0]):
        return None
    dim = args[1] if len(args) > 1 else 0
    dim = dim % len(expr.dims) + 1
    return e.call(expr.target, [_for_each(e, x) for x in args[0]], dim, kind=kind_of(expr))


def _index_select(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    x, dim, index = args
    if not x.batched or index.batched or not x.expr.dims:
        return None
    return e.call(expr.target, x.node, dim % len(x.expr.dims) + 1, index.node, kind=kind_of(expr))


def _as_it_is(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    """Layers with weights that are the same for all, on any number of leading dims."""
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs), is_leaf=_is_given) if isinstance(leaf, Given)]
    place = 1 if expr.target is aten.embedding.default else 0
    if any(x.batched != (i == place) for i, x in enumerate(given)):
        return None
    return e.call(expr.target, *_nodes(tuple(args)), kind=kind_of(expr), **_nodes(dict(kwargs)))


def _masked_write(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    """`x[mask] = number` is `where(mask, number, x)`. vmap takes no boolean index."""
    x, indices, number, *accumulate = args
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].expr.dtype != torch.bool or number.expr.dims or any(accumulate) or kwargs:
        return None
    before, mask = given[0]
    node, first = mask.node, int(mask.batched)
    for _ in range(before):
        node = e.call(aten.unsqueeze.default, node, first)
    for _ in range(len(expr.dims) - before - len(mask.expr.dims)):
        node = e.call(aten.unsqueeze.default, node, -1)
    value = _aligned(e, len(expr.dims), number)
    return e.call(aten.where.self, node, value, x.node, kind=kind_of(expr))


def _mm(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    """Two matrices per request are a batched product; a weight multiplies the rows of all requests at once."""
    a, b = args
    if b.batched:
        return e.call(aten.bmm.default, _for_each(e, a), b.node, kind=kind_of(expr))
    return _apart(e, expr, e.call(aten.mm.default, _together(e, a), b.node), a)


def _addmm(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    bias, a, b = args
    if kwargs:
        return None
    if b.batched:
        addend = _aligned(e, 2, bias)
        return e.call(aten.baddbmm.default, addend, _for_each(e, a), b.node, kind=kind_of(expr))
    if not a.batched:
        return None
    if not bias.batched and len(bias.expr.dims) == 1:
        return _apart(e, expr, e.call(aten.addmm.default, bias.node, _together(e, a), b.node), a)
    product = _apart(e, expr, e.call(aten.mm.default, _together(e, a), b.node), a)
    return e.call(aten.add.Tensor, product, _aligned(e, 2, bias), kind=kind_of(expr))


def _for_each(e: Emitter, a: Given) -> fx.Node:
    """A tensor per request; of a weight a view, which a batched product reads in place."""
    if a.batched:
        return a.node
    node = e.call(aten.unsqueeze.default, a.node, 0)
    return e.call(aten.expand.default, node, [e.requests, *[-1] * len(a.expr.dims)])


def _together(e: Emitter, a: Given) -> fx.Node:
    """The rows of all requests, one under the other."""
    return e.call(aten.flatten.using_ints, a.node, 0, 1)


def _apart(e: Emitter, expr: Expr, flat: fx.Node, a: Given) -> fx.Node:
    return e.call(aten.unflatten.int, flat, 0, [e.requests, *e.sizes(a.expr.dims[:1])], kind=kind_of(expr))


def _bmm(e: Emitter, expr: Expr, args: Any, kwargs: Any) -> fx.Node | None:
    """A batch per request: both batch dims are one."""
    *addends, a, b = args
    if kwargs or not (a.batched and b.batched):
        return None
    pair = [e.call(aten.flatten.using_ints, x.node, 0, 1) for x in (a, b)]
    leading = [e.requests, *e.sizes(expr.dims[:1])]
    product = e.call(aten.bmm.default, *pair, kind=Kind(("B*", *expr.dims), expr.dtype))
    result = e.call(aten.unflatten.int, product, 0, leading, kind=kind_of(expr))
    for addend in addends:
        result = e.call(aten.add.Tensor, result, _aligned(e, 3, addend), kind=kind_of(expr))
    return result


Law = Callable[[Emitter, Expr, Any, Any], fx.Node | None]

LAWS: dict[Any, Law] = {
    aten.reshape.default: _reshape, aten.view.default: _reshape, aten.expand.default: _expand,
    aten.permute.default: _permute, aten.transpose.int: _dims_at(1, 2), aten.unsqueeze.default: _dims_at(1),
    aten.squeeze.dim: _dims_at(1), aten.squeeze.dims: _dims_at(1), aten.unflatten.int: _dims_at(1),
    aten.select.int: _dims_at(1), aten.slice.Tensor: _dims_at(1),
    aten.softmax.int: _dims_at(1), aten._softmax.default: _dims_at(1), aten._safe_softmax.default: _dims_at(1),
    aten.sum.dim_IntList: _dims_at(1), aten.mean.dim: _dims_at(1),
    aten.amax.default: _dims_at(1), aten.amin.default: _dims_at(1),
    aten.cat.default: _joined, aten.stack.default: _joined, aten.index_select.default: _index_select,
    aten.index_put.default: _masked_write,
    aten.embedding.default: _as_it_is, aten.linear.default: _as_it_is, aten.layer_norm.default: _as_it_is,
    aten.mm.default: _mm, aten.addmm.default: _addmm, aten.bmm.default: _bmm, aten.baddbmm.default: _bmm,
}  # fmt: skip
"""The spelling of a call for many requests. A law returns None where it does not hold."""
