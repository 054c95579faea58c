"""Eager execution: how a stage is run call by call, when no gradient is recorded and no compiler looks on.

The graphs of a plan are functional calls of ATen, for training, export and compilers. Five things make them slow to run
as they are, and are put right in a copy that computes the same:

- `torch.ops.aten.relu.default(x)` goes through a generic dispatcher, `torch.relu(x)` has a binding of its own;
- fresh memory has to be mapped before it is written, which for large intermediates costs more than the arithmetic: an
  elementwise call overwrites an operand that nobody reads afterwards;
- what is known per request is read for every candidate: where its dims lie in another order, it is put in order first;
- `c + a * b` is two passes over memory, `torch.addcmul(c, a, b)` is one;
- a softmax that is safe where a mask leaves nothing looks at every score for such a row, which takes longer than the
  softmax, though there rarely is one and its result shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from rankopt.cost import FREE
from rankopt.expressions import Expr, Stage
from rankopt.program import aten
from rankopt.strides import move


def safe_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """`aten._safe_softmax`: 0 in rows of which every element is -inf, the softmax in all others.

    A softmax of such a row is NaN from its first place on. Where no first place is, there is none.
    """
    if type(x) is Tensor and x.device.type == "cpu" and x.dim() and x.shape[dim]:
        weights = torch.softmax(x, dim, dtype)
        if not bool(weights.select(dim, 0).isnan().any()):
            return weights
    safe: Tensor = aten._safe_softmax.default(x, dim, dtype)
    return safe


NATIVE: dict[Any, Callable[..., Any] | str] = {
    aten.reshape.default: "reshape", aten.permute.default: "permute", aten.expand.default: "expand",
    aten.select.int: "select", aten.transpose.int: "transpose", aten.t.default: "t",
    aten.unsqueeze.default: "unsqueeze", aten.sym_size.int: "size", aten.squeeze.dim: "squeeze",
    aten.contiguous.default: "contiguous", aten.flatten.using_ints: "flatten", aten.unflatten.int: "unflatten",
    aten.add.Tensor: torch.add, aten.sub.Tensor: torch.sub, aten.mul.Tensor: torch.mul, aten.mul.Scalar: torch.mul,
    aten.div.Tensor: torch.div, aten.neg.default: torch.neg, aten.relu.default: torch.relu,
    aten.exp.default: torch.exp, aten.sigmoid.default: torch.sigmoid, aten.tanh.default: torch.tanh,
    aten.reciprocal.default: torch.reciprocal, aten.clamp_min.default: torch.clamp_min, aten.sqrt.default: torch.sqrt,
    aten.rsqrt.default: torch.rsqrt, aten.maximum.default: torch.maximum,
    aten.mm.default: torch.mm, aten.addmm.default: torch.addmm, aten.bmm.default: torch.bmm,
    aten.baddbmm.default: torch.baddbmm, aten.matmul.default: torch.matmul,
    aten.linear.default: torch.nn.functional.linear,
    aten.cat.default: torch.cat, aten.stack.default: torch.stack, aten.index_select.default: torch.index_select,
    aten.embedding.default: torch.embedding, aten.softmax.int: torch.softmax, aten._safe_softmax.default: safe_softmax,
    aten.layer_norm.default: torch.layer_norm,
    aten.sum.dim_IntList: torch.sum, aten.mean.dim: torch.mean, aten.amax.default: torch.amax,
    aten.where.self: torch.where, aten.addcmul.default: torch.addcmul,
}  # fmt: skip
"""Calls that have a binding with the same arguments: a function, or a method by its name."""

OVERWRITING = {
    aten.add.Tensor: "add_", aten.sub.Tensor: "sub_", aten.mul.Tensor: "mul_", aten.mul.Scalar: "mul_",
    aten.div.Tensor: "div_", aten.neg.default: "neg_", aten.relu.default: "relu_", aten.exp.default: "exp_",
    aten.sigmoid.default: "sigmoid_", aten.tanh.default: "tanh_", aten.reciprocal.default: "reciprocal_",
    aten.clamp_min.default: "clamp_min_", aten.baddbmm.default: "baddbmm_",
    aten.addcmul.default: "addcmul_",
}  # fmt: skip
"""Calls that have a method which replaces the first operand by the result."""

COMMUTATIVE = frozenset({aten.add.Tensor, aten.mul.Tensor})

PERMUTING = frozenset({aten.permute.default, aten.transpose.int, aten.t.default, aten.movedim.int})
"""Views with their dims in another order."""

SUMS = {aten.add.Tensor: 1, aten.sub.Tensor: -1}
"""Calls that add up, with the sign of the second operand."""


def eager(functional: fx.GraphModule) -> fx.GraphModule:
    """The same function, quicker to run. Neither its arguments nor its results are overwritten."""
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    fused = _fused(_in_order(functional.graph))
    memory = _Memory(fused)
    for node in fused.nodes:
        victim = memory.overwritten_by(node) if node.target in OVERWRITING else None
        memory.add(node, victim)
        copied = env[node] = graph.node_copy(node, env.__getitem__)
        if victim is not None and victim in node.args[1:] and node.target is aten.addcmul.default:
            copied.target, copied.kwargs = torch.addcmul, {**copied.kwargs, "out": env[victim]}
        elif victim is not None:
            first, *rest = node.args if node.args[0] is victim else (victim, node.args[0])
            copied.args = fx.map_arg((first, *rest), env.__getitem__)
            copied.op, copied.target = "call_method", OVERWRITING[node.target]
        else:
            _call_natively(copied)
    return fx.GraphModule({}, graph, class_name=type(functional).__name__)


def _in_order(graph: fx.Graph) -> fx.Graph:
    """A copy in which what elementwise calls read for every candidate is written out where it is a permuted view."""
    copy = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    written: dict[fx.Node, fx.Node] = {}

    def operand(x: fx.Node) -> fx.Node:
        expr = _expr(x)
        if not isinstance(expr, Expr) or expr.stage is not Stage.CONTEXT or expr.shape is None or move(expr, 1) is None:
            return env[x]
        if x not in written:
            written[x] = copy.call_function(aten.contiguous.default, (env[x],))
            written[x].meta["expr"] = replace(expr, target=aten.contiguous.default, args=(expr,), kwargs={})
        return written[x]

    for node in graph.nodes:
        expr = _expr(node)
        repeats = node.target in OVERWRITING and isinstance(expr, Expr) and expr.stage is Stage.CANDIDATE
        env[node] = copy.node_copy(node, operand if repeats else env.__getitem__)
    return copy


def _fused(graph: fx.Graph) -> fx.Graph:
    """A copy in which a product that is only added is part of the sum."""
    products = {product: node for node in graph.nodes if (product := _product_in(node)) is not None}
    sums = {node: product for product, node in products.items()}
    copy = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in sums:
            addend = next(x for x in node.args if x is not sums[node])
            args = fx.map_arg((addend, *sums[node].args), env.__getitem__)
            kwargs: dict[str, Any] = {} if SUMS[node.target] == 1 else {"value": -1}
            env[node] = copy.call_function(aten.addcmul.default, args, kwargs)
            env[node].meta = dict(node.meta)
        elif node not in products:
            env[node] = copy.node_copy(node, env.__getitem__)
    return copy


def _product_in(node: fx.Node) -> fx.Node | None:
    """The operand of a sum that is a product of two tensors and is not read again, if one call is the faster one."""
    if node.target not in SUMS or node.kwargs:
        return None
    for product in node.args if SUMS[node.target] == 1 else node.args[1:]:
        if isinstance(product, fx.Node) and product.target is aten.mul.Tensor and len(product.users) == 1:
            operands = [x for x in (*node.args, *product.args) if x is not product]
            if len(operands) == 3 and _fit_one_loop(node, [product, *operands]):
                return product
    return None


def _fit_one_loop(node: fx.Node, operands: Sequence[Any]) -> bool:
    """Whether operands are floats of one type, and at most one is repeated along the innermost dim: a loop that works
    on vectors takes no more of these. One that is permuted would pass its order on to the result."""
    exprs = [
        expr for x in (node, *operands) if isinstance(x, fx.Node) and (expr := _expr(x)) and expr.shape is not None
    ]
    if len(exprs) <= len(operands) or len({x.dtype for x in exprs}) > 1 or not exprs[0].dtype.is_floating_point:
        return False
    # a tensor of many requests is described by its shape alone, which does not tell its order
    if not all(isinstance(x, Expr) and not _is_permuted(x) for x in exprs):
        return False
    result, _, *read = [expr.dims for expr in exprs]
    inner = next((place for place in range(1, len(result) + 1) if result[-place] != 1), 0)
    return inner == 0 or sum(len(shape) < inner or shape[-inner] == 1 for shape in read) <= 1


def _is_permuted(expr: Expr) -> bool:
    """Whether a tensor is a view with its dims in another order, or a view of one; a state may be that, too."""
    while expr.target in FREE and expr.args and isinstance(expr.args[0], Expr):
        if expr.target in PERMUTING:
            return True
        expr = expr.args[0]
    return False


def _call_natively(node: fx.Node) -> None:
    if node.target is aten.slice.Tensor and len(node.args) == 4 and not node.kwargs:
        tensor, dim, start, end = node.args
        length = node.meta["expr"].dims[dim] if isinstance(dim, int) and "expr" in node.meta else None
        if isinstance(start, int) and isinstance(length, int) and start >= 0 and end != start:
            node.op, node.target, node.args = "call_method", "narrow", (tensor, dim, start, length)
        return
    native = NATIVE.get(node.target)
    if isinstance(native, str):
        node.op, node.target = "call_method", native
    elif native is not None:
        node.target = native


class _Memory:
    """Which memory each node lies in, and when that is read for the last time."""

    def __init__(self, graph: fx.Graph) -> None:
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self.base: dict[fx.Node, fx.Node] = {}
        self.last_read: dict[fx.Node, int] = {}

    def add(self, node: fx.Node, victim: fx.Node | None) -> None:
        """A view lies where its operand does, an overwriting call where its victim does, any other in fresh memory."""
        source = victim
        if source is None and node.op == "call_function" and node.target not in FRESH:
            source = next(iter(node.all_input_nodes), None)
        base = self.base[source] if source is not None else node
        self.base[node] = base
        last = max((self.order[user] for user in node.users), default=0)
        self.last_read[base] = max(self.last_read.get(base, 0), last)

    def overwritten_by(self, node: fx.Node) -> fx.Node | None:
        """The operand that `node` may replace by its result."""
        anywhere = node.target is aten.addcmul.default or (node.target in COMMUTATIVE and not node.kwargs)
        operands = node.args if anywhere else node.args[:1]
        return next((x for x in operands if isinstance(x, fx.Node) and self._is_free(x, node)), None)

    def _is_free(self, operand: fx.Node, node: fx.Node) -> bool:
        base = self.base[operand]
        dies_here = self.last_read[base] == self.order[node]
        shared = sum(self.base[x] is base for x in node.all_input_nodes) > 1
        if node.target is aten.baddbmm.default:  # factors are read while the sum is written
            shared |= operand in node.args[1:]
        return dies_here and not shared and _alike(operand, node) and _is_owned(operand)


FRESH = frozenset(NATIVE) - FREE - {aten.contiguous.default}
"""Calls that write their result into memory of its own. Any other may return an operand, or a view of one."""


def _alike(operand: fx.Node, result: fx.Node) -> bool:
    x, y = _expr(operand), _expr(result)
    return x is not None and y is not None and x.shape == y.shape and x.dtype == y.dtype


def _is_owned(operand: fx.Node) -> bool:
    """Whether a tensor is memory written by a call, or a view in which each place is an element of its own."""
    while operand.target in FREE and operand.all_input_nodes:
        if operand.target in (aten.expand.default, aten.expand_as.default):
            return False
        operand = operand.all_input_nodes[0]
    return operand.op == "call_function" and operand.target in FRESH


def _expr(node: fx.Node) -> Expr | None:
    return node.meta.get("expr")
