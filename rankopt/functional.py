"""In-place operators made functional, and what has no effect removed.

Most in-place operators of rankers change a tensor that nothing else sees (`nn.ReLU(inplace=True)` after a
linear layer): those are replaced here, one by one. For the rest (`x[:, 0] = 0`, a change through a view) the
functionalisation of torch runs, which costs about as much as the export did.
"""

from typing import Any

import torch
from torch import Tensor, fx
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram

aten = torch.ops.aten

# In-place operators whose functional form, given operands of one dtype, returns that dtype.
_PLAIN = {
    aten.relu_: aten.relu,
    aten.leaky_relu_: aten.leaky_relu,
    aten.elu_: aten.elu,
    aten.hardtanh_: aten.hardtanh,
    aten.sigmoid_: aten.sigmoid,
    aten.tanh_: aten.tanh,
    aten.exp_: aten.exp,
    aten.neg_: aten.neg,
    aten.clamp_: aten.clamp,
    aten.clamp_min_: aten.clamp_min,
    aten.clamp_max_: aten.clamp_max,
    aten.add_: aten.add,
    aten.sub_: aten.sub,
    aten.mul_: aten.mul,
    aten.div_: aten.div,
    aten.pow_: aten.pow,
    aten.masked_fill_: aten.masked_fill,
    aten.detach_: aten.detach,
}
# Operators that always make a new tensor, although their schema does not say so (they are composites).
_FRESH = {
    aten.linear.default,
    aten.matmul.default,
    aten.batch_norm.default,
    aten.layer_norm.default,
    aten.softmax.int,
    aten.scaled_dot_product_attention.default,
    aten.lift_fresh_copy.default,
    aten.cat.default,
    aten.stack.default,
}
# Operators that hand on their first operand; in a functional graph nothing can tell a copy from its original.
_IDENTITIES = {
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
}
# Operators that hand it on where their second operand is one, as a scale of attention often is.
_BY_ONE = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.pow.Tensor_Scalar}


def functional_graph(program: ExportedProgram) -> tuple[fx.Graph, ExportedProgram]:
    """A copy of the program's graph without in-place operators, and the program whose signature it has."""
    graph = _copy(program.graph)
    _replace_in_place(graph)
    if any(_is_in_place(node) or _holds_a_graph(node) for node in graph.nodes):
        program = program.run_decompositions({})
        graph = _copy(program.graph)
    _keep_rows(graph)
    simplify(graph)
    return graph, program


def _keep_rows(graph: fx.Graph) -> None:
    """Has `squeeze` drop the dims that have size one at every number of rows: at one row, the rows would go too."""
    for node in graph.nodes:
        if node.target not in (aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims):
            continue
        shape = node.args[0].meta["val"].shape
        wanted = node.args[1] if len(node.args) > 1 else range(len(shape))
        dims = {range(len(shape))[dim] for dim in ([wanted] if isinstance(wanted, int) else wanted) if shape}
        node.target = aten.squeeze.dims
        node.args = (node.args[0], [dim for dim in sorted(dims) if isinstance(shape[dim], int) and shape[dim] == 1])


def simplify(graph: fx.Graph) -> None:
    """Drops operators that hand on their operand, assertions, and whatever no output needs."""
    for node in graph.nodes:
        if _hands_on(node):
            node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def _hands_on(node: fx.Node) -> bool:
    """Whether the result of a call is its first operand."""
    if node.target is aten.dropout.default:
        return node.args[2] is False
    if node.target in _BY_ONE:
        x, number = node.args[:2]
        if not isinstance(x, fx.Node) or not isinstance(number, int | float):
            return False
        return number == 1 and x.meta["val"].dtype == node.meta["val"].dtype
    return node.target in _IDENTITIES


def _copy(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    for node in copy.find_nodes(op="placeholder"):
        node.target = node.name  # an `input` is now called `input_1`, which may be the name of another argument
    return copy


def _replace_in_place(graph: fx.Graph) -> None:
    """Replaces in-place operators whose operand nobody else sees: from there on the result stands for it."""
    order = {node: position for position, node in enumerate(graph.nodes)}
    sharing = _Sharing()
    for node in graph.nodes:
        target = node.args[0] if node.args else None
        functional = _functional_form(node)
        if functional is None or not isinstance(target, fx.Node) or not _is_private(target, node, sharing, order):
            sharing.add(node)
            continue
        node.target = functional
        for user in list(target.users):
            if order[user] > order[node]:
                user.replace_input_with(target, node)
        sharing.add(node)


def _is_private(target: fx.Node, change: fx.Node, sharing: "_Sharing", order: dict[fx.Node, int]) -> bool:
    """Whether no node but `target` itself shows, after `change`, the memory that is changed."""
    for other in sharing.group(target):
        if other.op == "placeholder":
            return False
        if other is not target and any(order[user] > order[change] for user in other.users):
            return False
    return True


class _Sharing:
    """Which nodes may share memory, as far as has been read."""

    def __init__(self) -> None:
        self._groups: dict[fx.Node, list[fx.Node]] = {}

    def group(self, node: fx.Node) -> list[fx.Node]:
        return self._groups[node]

    def add(self, node: fx.Node) -> None:
        group = [node]
        if not _makes_a_new_tensor(node):
            for operand in node.all_input_nodes:
                if operand not in group:
                    group += self._groups[operand]
        self._groups.update(dict.fromkeys(group, group))


def _makes_a_new_tensor(node: fx.Node) -> bool:
    target = node.target
    if node.op != "call_function" or target in _FRESH:
        return True
    if not isinstance(target, OpOverload):
        return False  # getitem of a list of views, for one
    annotated = any(result.alias_info is not None for result in target._schema.returns)
    return not annotated and not target.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)


def _functional_form(node: fx.Node) -> Any:
    """The operator that computes what this in-place one does, where that is as simple as a change of name."""
    target = node.target
    if not isinstance(target, OpOverload) or target.overloadpacket not in _PLAIN:
        return None
    operands = [operand.meta["val"] for operand in node.all_input_nodes if isinstance(operand.meta.get("val"), Tensor)]
    dtypes = {value.dtype for value in operands} - {torch.bool}  # a mask is no operand of the arithmetic
    if len(dtypes) != 1:
        return None
    return getattr(_PLAIN[target.overloadpacket], target._overloadname, None)


def _is_in_place(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _holds_a_graph(node: fx.Node) -> bool:
    return isinstance(node.target, HigherOrderOperator)
