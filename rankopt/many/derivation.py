"""The many-request form of a candidate stage: its graph, node by node, with values in up to two forms (`forms`).

A call on weights and rows stays FLAT. Where a state comes in, a dense call splits the rows, which costs nothing. A
ragged one gives every row its state where the call is elementwise, and splits the rows where it is a product: a state
is never repeated for a product, not even where the model repeats it. (A product of rows and weights to which a state is
added is no product with a state.) What mixes rows is exact request by request, so a dense call splits it; a ragged one
cannot.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from rankopt.axes import Rows
from rankopt.cost import is_pointwise
from rankopt.expressions import Expr, Leaf, Stage
from rankopt.many.apart import keeps_rows_apart, row_dim
from rankopt.many.batched import Cannot, Emitter, Given, batched, is_random, kind_of
from rankopt.many.forms import INDEX, Form, Forms, Held
from rankopt.many.places import Place, Places
from rankopt.program import aten

PRODUCTS = frozenset({aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.linear.default})

SUMS: dict[Any, Any] = {aten.addmm.default: aten.mm.default, aten.baddbmm.default: aten.bmm.default}
"""Products to which something is added, and the product alone."""


class Derivation:
    """One graph being derived.

    Args:
        stage: the context stage or the candidate stage.
        ragged: rows come flat, with `INDEX`; else they come as [B, N, ...].
        varying: inputs of the context that differ from request to request; the others are scalars.
    """

    def __init__(self, stage: Stage, ragged: bool, varying: frozenset[str]) -> None:
        self.stage = stage
        self.ragged = ragged
        self.varying = varying
        self.graph = fx.Graph()
        self.emitter = Emitter(self.graph)
        self.places = Places()
        self.held: dict[fx.Node, Held] = {}
        self.sizes: dict[tuple[fx.Node, Form], fx.Node] = {}
        self.forms = Forms(self.emitter, self.places, ragged)

    @property
    def pads(self) -> bool:
        """Whether a ragged graph reads the padded layout."""
        return self.forms.pads

    def derive(self, single: fx.GraphModule, name: str) -> fx.GraphModule:
        """The graph for many requests. Raises Cannot where there is none."""
        self._arguments(single.graph.find_nodes(op="placeholder"))
        for node in single.graph.nodes:
            if node.op == "call_function":
                self._step(node)
        results: Any = single.graph.output_node().args[0]
        self.graph.output(tuple(self._result(self.held[node]) for node in results))
        self.graph.eliminate_dead_code()
        self.graph.lint()
        return fx.GraphModule({}, self.graph, class_name=name)

    # -------------------------------------------------------------------------------------------------- arguments

    def _arguments(self, nodes: Sequence[fx.Node]) -> None:
        copies = [self.graph.placeholder(str(node.target)) for node in nodes]
        if self.ragged:
            index = self.forms.index
            index |= {name: self.graph.placeholder(name) for name in INDEX}
            padded = index["padded"]
            self.emitter.requests = self.emitter.call(aten.sym_size.int, padded, 0)
            self.emitter.longest = self.emitter.call(aten.sym_size.int, padded, 1)
        for node, copy in zip(nodes, copies, strict=True):
            expr: Expr = node.meta["expr"]
            held = self.held[node] = Held(expr)
            if any(isinstance(size, Rows) for size in expr.dims):
                self._rows(held, copy)
            elif expr.inputs & self.varying:
                self._of_requests(held, copy)
            else:
                copy.meta["expr"] = expr
                held.forms[Form.SHARED] = copy

    def _rows(self, held: Held, copy: fx.Node) -> None:
        expr = held.expr
        if row_dim(expr) != 0:
            raise Cannot("the rows of a target input are not its first dim")
        self.places.of(expr)
        if self.ragged:
            copy.meta["expr"] = expr
            held.forms[Form.FLAT] = copy
            return
        if self.emitter.longest is None:
            self.emitter.requests = self.emitter.call(aten.sym_size.int, copy, 0)
            self.emitter.longest = self.emitter.call(aten.sym_size.int, copy, 1)
        copy.meta["expr"] = kind_of(expr)
        held.forms[Form.SPLIT] = copy

    def _of_requests(self, held: Held, copy: fx.Node) -> None:
        expr = held.expr
        if self.emitter.requests is None:
            self.emitter.requests = self.emitter.call(aten.sym_size.int, copy, 0)
        if self.stage is Stage.CONTEXT and expr.target is Leaf.INPUT:  # the stage of one request has seen [1, ...]
            copy = self.emitter.call(aten.unsqueeze.default, copy, 1)
        copy.meta["expr"] = kind_of(expr)
        held.forms[Form.REQUESTS] = copy

    # -------------------------------------------------------------------------------------------------- one call

    def _step(self, node: fx.Node) -> None:
        expr: Expr = node.meta["expr"]
        self.places.of(expr)
        if self._is_size(node):
            return
        held = self.held[node] = Held(expr)
        read = [self.held[x] for x in node.all_input_nodes if x in self.held]
        counts = len(read) < len(node.all_input_nodes)
        rows = [x for x in read if x.has_rows]
        per_request = any(Form.REQUESTS in x.forms for x in read)
        if not rows and not counts:
            self._without_rows(node, held, per_request)
        elif not keeps_rows_apart(expr):
            self._mixing(node, held)
        elif self._repeats_state(node):
            self._emit_unrepeated(node, held)
        elif not per_request and self._stays_flat(expr, rows):
            self._emit_flat(node, held)
        elif self._adds_state(node):
            self._emit_sum(node, held)
        elif self._may_join(expr, read, rows, counts):
            self._emit_joined(node, held)
        else:
            self._emit_split(node, held)

    def _is_size(self, node: fx.Node) -> bool:
        """Whether a call gives a number that follows from the number of rows."""
        expr: Expr = node.meta["expr"]
        return node.target is aten.sym_size.int or (
            expr.shape is None and not any(x in self.held for x in node.all_input_nodes)
        )

    def _may_join(self, expr: Expr, read: Sequence[Held], rows: Sequence[Held], counts: bool) -> bool:
        """Whether flat rows may meet their states in this call: where it is elementwise, and rows are not folded.

        A dense call does so where splitting the rows would move them.
        """
        place = self.places.of(expr)
        if place is None or place.before * place.after > 1 or not self._any_flat(rows):
            return False
        if any(not x.expr.shape and x.expr.dtype != y.expr.dtype for x in read for y in read):
            return False  # a tensor without dims has less to say about the result's type than one with
        if self.ragged:
            return expr.target is aten.expand.default or is_pointwise(expr.target)
        aligned = all(Form.FLAT in x.forms and self._reaches(x.expr, expr, place) for x in rows)
        return is_pointwise(expr.target) and not place.leads and not counts and bool(rows) and aligned

    def _reaches(self, operand: Expr, result: Expr, place: Place) -> bool:
        """Whether the rows of an operand stand where those of the result do, counted from the last dim."""
        return self.places.of(operand) == Place(place.dim - len(result.dims) + len(operand.dims))

    def _adds_state(self, node: fx.Node) -> bool:
        """Whether a state is added to a product that has none."""
        place = self.places.of(node.meta["expr"])
        if node.target not in SUMS or node.kwargs or place is None or place.before * place.after > 1:
            return False
        addend, *factors = (self.held[x] for x in node.args)  # type: ignore[index]
        rows = [x for x in factors if x.has_rows]
        alone = not any(Form.REQUESTS in x.forms for x in factors)
        return Form.REQUESTS in addend.forms and alone and self._stays_flat(node.meta["expr"], rows)

    def _repeats_state(self, node: fx.Node) -> bool:
        """Whether a model repeats a matrix of the request for every row, and multiplies each row by it."""
        if node.target not in (aten.matmul.default, aten.bmm.default):
            return False
        sources = [self._matrix(x) for x in node.args]  # type: ignore[arg-type]
        others = [self.held[x] for x, source in zip(node.args, sources, strict=True) if source is None]  # type: ignore[index]
        alone = len(others) == 1 and others[0].has_rows
        return alone and len(others[0].expr.dims) == 3 and self._leads(others[0].expr)

    def _matrix(self, x: fx.Node) -> Held | None:
        """The matrix [m, k] of a request that `x` [R, m, k] repeats, if it does."""
        if x.target is not aten.expand.default or len(x.meta["expr"].dims) != 3 or not self._leads(x.meta["expr"]):
            return None
        source = self.held[x.args[0]]  # type: ignore[index]
        matrix = source.expr.dims[-2:] == x.meta["expr"].dims[1:] and source.expr.dims[:-2] in ((), (1,))
        return source if matrix and Form.REQUESTS in source.forms else None

    def _any_flat(self, rows: Sequence[Held]) -> bool:
        return not rows or any(Form.FLAT in x.forms for x in rows)

    def _stays_flat(self, expr: Expr, rows: Sequence[Held]) -> bool:
        """A call without a state: on flat rows, where they are flat or may as well be."""
        if not self.ragged:
            return all(Form.FLAT in x.forms or self._leads(x.expr) for x in rows)
        return self._any_flat(rows) or expr.target in PRODUCTS

    def _leads(self, expr: Expr) -> bool:
        place = self.places.of(expr)
        return place is not None and place.leads

    def _without_rows(self, node: fx.Node, held: Held, per_request: bool) -> None:
        if not per_request:
            held.forms[Form.SHARED] = self._copy(node, Form.SHARED)
            return
        _require_certain(node)
        if node.target is operator.getitem:
            held.forms[Form.REQUESTS] = self._copy(node, Form.REQUESTS)
        else:
            held.forms[Form.REQUESTS] = self._batched(node, Form.REQUESTS)

    def _mixing(self, node: fx.Node, held: Held) -> None:
        """A call that may mix rows, request by request: exact where all requests have the same number."""
        if self.ragged:
            raise Cannot(f"{node.target} may mix rows")
        _require_certain(node)
        self._emit_split(node, held)

    def _emit_flat(self, node: fx.Node, held: Held) -> None:
        if held.expr.shape is not None and not _counts_rows(held.expr):
            raise Cannot(f"{node.target} gives one result for all rows")
        held.forms[Form.FLAT] = self._copy(node, Form.FLAT)

    def _emit_split(self, node: fx.Node, held: Held) -> None:
        form = Form.SPLIT if held.expr.shape is None or _counts_rows(held.expr) else Form.REQUESTS
        if node.target is operator.getitem:
            held.forms[form] = self._copy(node, Form.SPLIT)
            return
        if self.emitter.longest is None:
            raise Cannot("no target input has rows")
        self.forms.pads |= self.ragged
        held.forms[form] = self._batched(node, Form.SPLIT)

    def _emit_joined(self, node: fx.Node, held: Held) -> None:
        """An elementwise call of flat rows and their states."""
        place = self.places.of(held.expr)
        assert place is not None
        join = self._per_row if self.ragged else self.forms.opened
        ndim = len(held.expr.dims)

        def joined(x: fx.Node) -> fx.Node:
            return join(self.held[x], place, ndim) if x in self.held else self._size(x, Form.FLAT)

        args, kwargs = pytree.tree_map_only(fx.Node, joined, (node.args, node.kwargs))
        self._emit_rows(held, place, self.emitter.call(node.target, *args, **kwargs))

    def _per_row(self, held: Held, place: Place, ndim: int) -> fx.Node:
        if Form.REQUESTS in held.forms:
            return self.forms.per_row(held, place, ndim)
        return self.forms.get(held, Form.FLAT)

    def _emit_unrepeated(self, node: fx.Node, held: Held) -> None:
        """The rows of each request side by side, times its matrix: [m, k] [R, k, n], or [R, m, k] [k, n]."""
        e, (left, right) = self.emitter, node.args
        first = self._matrix(left)  # type: ignore[arg-type]
        state = first or self._matrix(right)  # type: ignore[arg-type]
        rows = self.held[right if first else left]  # type: ignore[index]
        assert state is not None
        matrix, split = state.forms[Form.REQUESTS], self.forms.get(rows, Form.SPLIT)  # [B, (1,) m, k], [B, N, k, n]
        if len(state.expr.dims) == 3:
            matrix = e.call(aten.squeeze.dim, matrix, 1)
        if first:
            columns = e.call(aten.flatten.using_ints, e.call(aten.permute.default, split, [0, 2, 1, 3]), 2, 3)
            product = e.call(aten.bmm.default, matrix, columns)  # [B, m, N * n]
            product = e.call(aten.unflatten.int, product, 2, [e.longest, rows.expr.dims[2]])
            product = e.call(aten.permute.default, product, [0, 2, 1, 3])
        else:
            product = e.call(aten.bmm.default, e.call(aten.flatten.using_ints, split, 1, 2), matrix)
            product = e.call(aten.unflatten.int, product, 1, [e.longest, rows.expr.dims[1]])
        product.meta["expr"] = kind_of(held.expr)
        held.forms[Form.SPLIT] = product

    def _emit_sum(self, node: fx.Node, held: Held) -> None:
        """A product of rows and weights, and the state of each row added to it."""
        place, ndim = self.places.of(held.expr), len(held.expr.dims)
        assert place is not None
        addend, *factors = node.args
        flat = [self.forms.get(self.held[x], Form.FLAT) for x in factors]  # type: ignore[index]
        state = self.held[addend]  # type: ignore[index]
        if self.ragged:
            self._emit_rows(held, place, self.emitter.call(node.target, self._per_row(state, place, ndim), *flat))
            return
        product = self.emitter.call(SUMS[node.target], *flat, kind=held.expr)
        pair = [self.forms.opened(x, place, ndim) for x in (Held(held.expr, {Form.FLAT: product}), state)]
        self._emit_rows(held, place, self.emitter.call(aten.add.Tensor, *pair))

    def _emit_rows(self, held: Held, place: Place, result: fx.Node) -> None:
        """Notes a result for all rows: flat in a ragged call, [.., B, N, ..] in a dense one."""
        if self.ragged:
            result.meta["expr"] = held.expr
            held.forms[Form.FLAT] = result
            return
        held.forms[Form.FLAT] = self.forms.closed(result, held.expr, place)
        if place.leads:
            held.forms[Form.SPLIT] = result

    # -------------------------------------------------------------------------------------------------- arguments

    def _copy(self, node: fx.Node, form: Form) -> fx.Node:
        """The call of one request as it is, on values in one form."""

        def convert(x: fx.Node) -> fx.Node:
            return self.forms.get(self.held[x], form) if x in self.held else self._size(x, form)

        args, kwargs = fx.map_arg((node.args, node.kwargs), convert)
        expr: Expr = node.meta["expr"]
        flat = form in (Form.FLAT, Form.SHARED)
        return self.emitter.call(node.target, *args, kind=expr if flat else kind_of(expr), **kwargs)

    def _batched(self, node: fx.Node, form: Form) -> fx.Node:
        """The call with a leading request dim."""
        arguments = pytree.tree_map_only(fx.Node, lambda x: self._given(x, form), (node.args, node.kwargs))
        expr: Expr = node.meta["expr"]
        if any(isinstance(x, Given) and x.batched for x in pytree.tree_leaves(arguments)):
            return batched(self.emitter, expr, *arguments)
        args, kwargs = pytree.tree_map_only(Given, lambda x: x.node, arguments)
        return self._repeated(self.emitter.call(node.target, *args, **kwargs), expr)

    def _given(self, x: fx.Node, form: Form) -> Given | fx.Node:
        if x not in self.held:
            return self._size(x, form)
        held = self.held[x]
        if Form.SHARED in held.forms:
            return Given(held.forms[Form.SHARED], held.expr, batched=False)
        return Given(
            self.forms.get(held, Form.REQUESTS if Form.REQUESTS in held.forms else form), held.expr, batched=True
        )

    def _repeated(self, node: fx.Node, expr: Expr) -> fx.Node:
        """What is the same for all requests, with a leading request dim."""
        e = self.emitter
        if e.requests is None:
            raise Cannot("nothing says how many requests there are")
        node = e.call(aten.unsqueeze.default, node, 0)
        return e.call(aten.expand.default, node, [e.requests, *[-1] * len(expr.dims)], kind=kind_of(expr))

    def _size(self, node: fx.Node, form: Form) -> fx.Node:
        """A number of rows: of one request, or of all of them."""
        form = Form.FLAT if form is Form.SHARED else form
        if (node, form) in self.sizes:
            return self.sizes[node, form]
        if node.target is aten.sym_size.int:
            result = self._rows_of(node.args[0], form)  # type: ignore[arg-type]
        else:
            result = self.emitter.call(node.target, *fx.map_arg(node.args, lambda x: self._size(x, form)))
        self.sizes[node, form] = result
        return result

    def _rows_of(self, source: fx.Node, form: Form) -> fx.Node:
        if form is not Form.FLAT:
            if self.emitter.longest is None:
                raise Cannot("no target input has rows")
            return self.emitter.longest
        return self.emitter.call(aten.sym_size.int, self.forms.get(self.held[source], Form.FLAT), 0)

    # -------------------------------------------------------------------------------------------------- results

    def _result(self, held: Held) -> fx.Node:
        """An output of the candidate stage: of each row in a ragged call, else [B, ...]. A state, as it is."""
        if self.stage is Stage.CONTEXT:
            return next(iter(held.forms.values()))
        if self.ragged:
            if row_dim(held.expr) is None:
                raise Cannot("an output does not have one dim of rows")
            return self.forms.get(held, Form.FLAT)
        if Form.SHARED in held.forms:
            return self._repeated(held.forms[Form.SHARED], held.expr)
        return self.forms.get(held, Form.REQUESTS if Form.REQUESTS in held.forms else Form.SPLIT)


def _counts_rows(expr: Expr) -> bool:
    return any(isinstance(size, Rows) for size in expr.dims)


def _require_certain(node: fx.Node) -> None:
    """Raises Cannot for a random op, of which each request would have drawn its own numbers."""
    if is_random(node.meta["expr"]):
        raise Cannot(f"{node.target} draws random numbers")
