"""How a value of one request stands for those of all, and how it is brought from one form into another.

SHARED      as it is: weights, scalars, what depends on no request
REQUESTS    [B, ...]: a state, and what is made of states alone
FLAT        the rows of all requests as if they were one request's
SPLIT       [B, ...] with the rows of each request inside: a view in a dense call, padded in a ragged one
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from torch import fx

from rankopt.axes import Rows
from rankopt.expressions import Expr
from rankopt.many.batched import REQUESTS, Cannot, Emitter, Kind, kind_of
from rankopt.many.places import Place, Places
from rankopt.program import aten


class Form(Enum):
    """How a value of one request stands for those of all."""

    SHARED = "shared"
    REQUESTS = "requests"
    FLAT = "flat"
    SPLIT = "split"


@dataclass(slots=True)
class Held:
    """A value in the forms that it is needed in."""

    expr: Expr
    forms: dict[Form, fx.Node] = field(default_factory=dict[Form, fx.Node])

    @property
    def has_rows(self) -> bool:
        """Whether it differs from row to row."""
        return Form.FLAT in self.forms or Form.SPLIT in self.forms


INDEX = ("request_of", "padded", "slot_of")
"""Further arguments of a ragged graph: the request of each row [R]; a row for each place in a padded layout [B, L],
where L is the length of the longest request; and the place of each row in it, flat [R]."""


class Forms:
    """Values of one graph in their forms. `index`: the nodes of `INDEX`, in a ragged graph; else empty."""

    def __init__(self, emitter: Emitter, places: Places, ragged: bool) -> None:
        self.emitter = emitter
        self.places = places
        self.ragged = ragged
        self.index: dict[str, fx.Node] = {}
        self.pads = False
        """Whether a ragged graph reads the padded layout."""

    def get(self, held: Held, form: Form) -> fx.Node:
        """A value in a form, converted once."""
        if form not in held.forms:
            if Form.SHARED in held.forms:
                return held.forms[Form.SHARED]
            place = self.places.of(held.expr)
            if place is None:
                raise Cannot(f"the rows of {held.expr.origin.node} are folded in a way that is not known")
            held.forms[form] = self._split(held, place) if form is Form.SPLIT else self._flatten(held, place)
        return held.forms[form]

    def _split(self, held: Held, place: Place) -> fx.Node:
        """[.., R, ..] -> [B, .., N, ..]"""
        e, node = self.emitter, held.forms[Form.FLAT]
        if self.ragged:
            self.pads = True
            node = self._take(node, place, self._padded_places())
        inner = e.sizes([Rows(place.after)])
        outer = [place.before] if place.before > 1 else []
        node = e.call(aten.unflatten.int, node, place.dim, [*outer, e.requests, *inner])
        at, ndim = place.dim + len(outer), len(held.expr.dims) + 1 + len(outer)
        node = self._moved(node, at, 0, ndim)
        if outer:
            node = e.call(aten.flatten.using_ints, node, place.dim + 1, place.dim + 2)
        node.meta["expr"] = kind_of(held.expr)
        return node

    def _flatten(self, held: Held, place: Place) -> fx.Node:
        """[B, .., N, ..] -> [.., R, ..]"""
        e, node = self.emitter, held.forms[Form.SPLIT]
        outer = place.before > 1
        if outer:
            inner = e.sizes([Rows(place.after)])
            node = e.call(aten.unflatten.int, node, place.dim + 1, [place.before, *inner])
        node = self._moved(node, 0, place.dim + outer, len(held.expr.dims) + 1 + outer)
        node = e.call(aten.flatten.using_ints, node, place.dim, place.dim + 1 + outer, kind=held.expr)
        if self.ragged:
            node = self._take(node, place, self.index["slot_of"])
            node.meta["expr"] = held.expr
        return node

    def _padded_places(self) -> fx.Node:
        if "flat" not in self.index:
            self.index["flat"] = self.emitter.call(aten.flatten.using_ints, self.index["padded"], 0, 1)
        return self.index["flat"]

    def _take(self, node: fx.Node, place: Place, rows: fx.Node) -> fx.Node:
        """The given rows, in their order, of a flat tensor."""
        e = self.emitter
        outer = [place.before] if place.before > 1 else []
        inner = [place.after] if place.after > 1 else []
        if not outer and not inner:
            return e.call(aten.index_select.default, node, place.dim, rows)
        node = e.call(aten.unflatten.int, node, place.dim, [*outer, -1, *inner])
        node = e.call(aten.index_select.default, node, place.dim + len(outer), rows)
        return e.call(aten.flatten.using_ints, node, place.dim, place.dim + len(outer) + len(inner))

    def _moved(self, node: fx.Node, source: int, to: int, ndim: int) -> fx.Node:
        if source == to:
            return node
        order = [dim for dim in range(ndim) if dim != source]
        order.insert(to, source)
        return self.emitter.call(aten.permute.default, node, order)

    # -------------------------------------------------------------------------------------------------- states

    def per_row(self, held: Held, place: Place, ndim: int) -> fx.Node:
        """The state of the request of each row, with the rows at `place` of a result that has `ndim` dims."""
        e, dims = self.emitter, held.expr.dims
        node = e.call(aten.index_select.default, held.forms[Form.REQUESTS], 0, self.index["request_of"])
        behind = place.dim - (ndim - len(dims))  # the dim of the state that rows are broadcast along
        if behind < 0:  # the state has no such dim: rows lead, and there are `-behind` dims of one between
            for _ in range(-behind - 1):
                node = e.call(aten.unsqueeze.default, node, 1)
            shape: tuple[Any, ...] = (Rows(), *[1] * (-behind - 1), *dims)
        else:
            node = self._moved(node, 0, behind, len(dims) + 1)
            node = e.call(aten.squeeze.dim, node, behind + 1)
            shape = (*dims[:behind], Rows(), *dims[behind + 1 :])
        node.meta["expr"] = Kind(shape, held.expr.dtype)
        return node

    def opened(self, held: Held, place: Place, ndim: int) -> fx.Node:
        """An operand of an elementwise call on rows at `place` of `ndim` dims, as that of [.., B, N, ..]: all views."""
        e, dims = self.emitter, held.expr.dims
        at = place.dim - (ndim - len(dims))  # the place of the rows among the operand's own dims
        if Form.REQUESTS in held.forms:
            node = held.forms[Form.REQUESTS]
            if at >= 0:  # along the rows the state has a dim of one
                node = self._moved(node, 0, at, len(dims) + 1)
            for _ in range(-at):
                node = e.call(aten.unsqueeze.default, node, 1)
            shape: tuple[Any, ...] = (*dims[: max(at, 0)], REQUESTS, *[1] * -at, *dims[max(at, 0) :])
        elif held.has_rows:
            node = e.call(aten.unflatten.int, self.get(held, Form.FLAT), at, [e.requests, e.longest])
            shape = (*dims[:at], REQUESTS, *dims[at:])
        else:
            node = held.forms[Form.SHARED]
            if at >= 0:
                node = e.call(aten.unsqueeze.default, node, at)
            shape = (*dims[:at], 1, *dims[at:]) if at >= 0 else dims
        if node.op == "call_function" and "expr" not in node.meta:
            node.meta["expr"] = Kind(shape, held.expr.dtype)
        return node

    def closed(self, node: fx.Node, expr: Expr, place: Place) -> fx.Node:
        """The rows of all requests, of a result [.., B, N, ..]."""
        node.meta["expr"] = Kind((*expr.dims[: place.dim], REQUESTS, *expr.dims[place.dim :]), expr.dtype)
        return self.emitter.call(aten.flatten.using_ints, node, place.dim, place.dim + 1, kind=expr)
