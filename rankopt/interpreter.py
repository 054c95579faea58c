"""The interpreter: runs the captured graph once, on deferred values instead of tensors.

For each node it asks the rule table; a rule that is missing or refuses leaves the op as the model wrote it, on tiled
rows ("opaque"). Every node is labelled with what was found out about it, and every refusal is logged with its reason.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce as fold
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

import rankopt.passes  # noqa: F401  registers the rules
from rankopt.axes import ROW, Rows, Shape
from rankopt.chains import chain_links
from rankopt.dims import from_tensor
from rankopt.evaluate import force
from rankopt.expressions import Expr, Origin
from rankopt.labels import Label, label_of, opaque_label, sum_label
from rankopt.materialise import to_tensor
from rankopt.moves import BLANK, shorter_move, source
from rankopt.program import aten
from rankopt.rules import RULES, Refusal, Rule
from rankopt.sizes import symbolic_size
from rankopt.values import Term, Value, leaves
from rankopt.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Raw:
    """A tensor whose rows are not one plain dim (folded, squared, data-dependent): only opaque ops can read it."""

    tensor: Expr


@dataclass(slots=True)
class Addends:
    """The beginning of a chain of additions, nothing added up yet."""

    values: list[Value | Raw]
    label: Label

    def append(self, addend: Value | Raw) -> None:
        """One more addend. What is rank-2 in the sum is so in every addend."""
        self.values.append(addend)
        self.label = sum_label(self.label, _label(addend))


def _label(value: Value | Raw) -> Label:
    return opaque_label(value.tensor.inputs) if isinstance(value, Raw) else label_of(value)


@dataclass(frozen=True, slots=True)
class Decision:
    """What happened to one node: the rule that was applied, or why it was not."""

    node: str
    op: str
    rule: str = ""
    refusal: str = ""


@dataclass(slots=True)
class Interpretation:
    """The result: output values, a label per node, the decisions."""

    outputs: list[Expr]
    output_has_rows: list[bool]
    labels: dict[str, Label] = field(default_factory=dict[str, Label])
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    decisions: list[Decision] = field(default_factory=list[Decision])


class Interpreter(fx.Interpreter):
    """Interprets an ATen graph over deferred values. `inputs`: the value of every placeholder, by node name."""

    def __init__(self, w: Workspace, graph_module: fx.GraphModule, rows: Any, disabled: frozenset[str]) -> None:
        super().__init__(graph_module)
        self.w = w
        self.rows = rows
        self.disabled = disabled
        self.result = Interpretation([], [])
        self._node: fx.Node | None = None
        laws = {"concatenation", "elementwise", "reductions"}
        apart = w.policy.unchanged or laws & disabled
        self._links = {} if apart else chain_links(graph_module.graph, rows)

    def interpret(self, inputs: Mapping[str, Value | Raw]) -> Interpretation:
        """Runs the graph."""
        placeholders = [node.name for node in self.graph.nodes if node.op == "placeholder"]
        outputs = self.run(*(inputs[name] for name in placeholders), enable_io_processing=False)
        self.w.program.origin = Origin("output", "output")
        for value in pytree.tree_leaves(outputs, is_leaf=_is_value):
            self.result.outputs.append(self._tensor(value))
            has_rows = isinstance(value, Raw) or (isinstance(value, Value) and ROW in value.axes)
            self.result.output_has_rows.append(has_rows)
        return self.result

    def run_node(self, n: fx.Node) -> Any:
        """One node: a size, or a value by rule or as it is."""
        self._node = n
        meta = n.meta.get("val")
        if n.op == "call_function" and isinstance(
            meta, torch.SymInt | torch.SymBool | torch.SymFloat | int | bool | float
        ):
            return self._scalar(n, meta)
        result = self._link(n) if n in self._links else super().run_node(n)
        if isinstance(result, Addends):
            self.result.labels[n.name] = result.label
        elif n.op == "call_function" and isinstance(result, Value):
            if self._to_be_shared(n):
                for sum_ in leaves(result.node):
                    if sum_.operand is None:
                        sum_.terms = (Term((force(self.w, sum_),)),)
            self.result.values[n.name] = result
            self.result.labels[n.name] = label_of(result, opaque=self.result.decisions[-1].refusal != "")
        elif isinstance(result, Value):
            self.result.values[n.name] = result
            self.result.labels[n.name] = label_of(result)
        elif isinstance(result, Raw):
            self.result.labels[n.name] = opaque_label(result.tensor.inputs)
        return result

    def _link(self, n: fx.Node) -> Any:
        """An addition of a chain: one more addend, or at the end of the chain the sum of them."""
        args, _ = self.fetch_args_kwargs_from_env(n)
        before, addend = args[0], args[1]
        addends = before if isinstance(before, Addends) else Addends([before], _label(before))
        addends.append(addend)
        if not self._links[n]:
            self._log(str(n.target), rule=RULES[aten.add.Tensor].name)
            return addends
        if all(isinstance(value, Value) for value in addends.values):
            stacked = self.call_function(aten.stack.default, (addends.values, 0), {})
            if isinstance(stacked, Value):
                self.result.decisions.pop()
                return self.call_function(aten.sum.dim_IntList, (stacked, [0]), {})
        return fold(lambda x, y: self.call_function(aten.add.Tensor, (x, y), {}), addends.values)

    def _to_be_shared(self, n: fx.Node) -> bool:
        """Whether a value is evaluated at once because several ops read it."""
        users = [user for user in n.users if user.op == "call_function"]
        return len(users) > 1 and (self.w.policy.share_values or any(_forces(user.target) for user in users))

    def _scalar(self, n: fx.Node, meta: Any) -> Any:
        size = symbolic_size(meta, self.rows)
        if size is not None:
            return size
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        args, kwargs = self._tensors((args, kwargs))
        if not callable(n.target):
            raise AssertionError(f"{n.name} calls {n.target!r}, which is no function")
        return self.w.program.call(n.target, *args, shape=None, out=torch.int64, **kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One op."""
        if target is operator.getitem and isinstance(args[0], tuple | list):
            self._log(str(target), rule="getitem")
            return args[0][args[1]]
        known = self._known(target, args, kwargs)
        if known is not None:
            self._log(str(target), rule="constant")
            return known
        rule = RULES.get(target)
        try:
            if rule is None:
                raise Refusal(f"no rule for {target}")
            self._check_enabled(rule, (args, kwargs))
            self.w.program.origin = Origin(self._name(), rule.name)
            result = rule.apply(self.w, *args, **kwargs)
            self._log(str(target), rule=rule.name)
            return result
        except Refusal as refusal:
            self._log(str(target), refusal=str(refusal))
            self.w.program.origin = Origin(self._name(), "opaque")
            return self._opaque(target, args, kwargs)

    def _check_enabled(self, rule: Rule, arguments: Any) -> None:
        leaves_ = pytree.tree_leaves(arguments, is_leaf=_is_value)
        if any(isinstance(leaf, Raw | Expr) for leaf in leaves_):
            raise Refusal("its rows are not one plain dim")
        if self.w.policy.unchanged:
            raise Refusal("the model is left unchanged")
        with_rows = any(isinstance(leaf, Value) and leaf.node.has_rows for leaf in leaves_)
        joins = rule.family == "concatenation"  # neighbours of the context are joined before they are tiled
        if self.w.policy.once and with_rows and not joins:
            raise Refusal("what reads target values is left unchanged")
        if rule.family == "elementwise" and any(isinstance(leaf, Rows) for leaf in leaves_):
            raise Refusal("the number of rows is computed with")
        values = [leaf for leaf in leaves_ if isinstance(leaf, Value)]
        if rule.family in self.disabled and any(value.node.has_rows for value in values):
            raise Refusal(f"pass {rule.family} is switched off")

    def _known(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Integer and boolean constants are computed at once: they are indices and masks that laws look into."""
        values = [leaf for leaf in pytree.tree_leaves((args, kwargs), is_leaf=_is_value)]
        if any(isinstance(leaf, Rows | Raw | Expr) for leaf in values) or not isinstance(target, torch._ops.OpOverload):
            return None
        tensors = [leaf for leaf in values if isinstance(leaf, Value)]
        metas = pytree.tree_leaves(self._node.meta.get("val") if self._node else None)
        if not all(isinstance(meta, torch.Tensor) and self._is_index(meta) for meta in metas):
            return None
        if any(value.known is None for value in tensors) or torch.Tag.nondeterministic_seeded in target.tags:
            return None
        args, kwargs = pytree.tree_map(
            lambda a: a.known if isinstance(a, Value) else a, (args, kwargs), is_leaf=_is_value
        )
        with torch.no_grad():
            result = target(*args, **{**kwargs, **({"device": "cpu"} if "device" in kwargs else {})})
        return pytree.tree_map(lambda tensor: constant_value(self.w, tensor), result)

    def _is_index(self, meta: torch.Tensor) -> bool:
        """Whether a tensor may be an index or a mask, small enough to be computed when compiling."""
        sizes = [size for size in self._shape(meta) if isinstance(size, int)]
        return len(sizes) == meta.ndim and not meta.dtype.is_floating_point and math.prod(sizes) <= 1 << 20

    def _opaque(self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The op as it stands in the model, on tiled rows (whose strides no view can rely on)."""
        target = aten.reshape.default if target in VIEWS else target
        args, kwargs = self._tensors((args, kwargs))
        if target in REINTERPRETING:
            args = (self.w.program.contiguous(args[0]), *args[1:])
        if target in BLANK:
            args = (source(args[0]), *args[1:])
        meta = self._node.meta.get("val") if self._node else None
        if isinstance(meta, torch.Tensor):
            moved = None if kwargs else shorter_move(self.w, self.rows, target, args, meta)
            return self._wrap(self._emit(target, args, kwargs, meta) if moved is None else moved, meta)
        whole = self.w.program.call(target, *args, shape=None, out=torch.float32, **kwargs)
        results: list[Value | Raw | None] = []
        for i, item in enumerate(meta if isinstance(meta, tuple | list) else ()):
            if not isinstance(item, torch.Tensor):
                results.append(None)
                continue
            results.append(self._wrap(self._emit(operator.getitem, (whole, i), {}, item), item))
        return tuple(results)

    def _emit(self, target: Callable[..., Any], args: Any, kwargs: Any, meta: torch.Tensor) -> Expr:
        shape = self._shape(meta)
        return self.w.program.call(target, *args, shape=shape, out=meta.dtype, **kwargs)

    def _shape(self, meta: torch.Tensor) -> Shape:
        found = [symbolic_size(size, self.rows) for size in meta.shape]
        return tuple(Rows() if size is None else size for size in found)

    def _wrap(self, tensor: Expr, meta: torch.Tensor) -> Value | Raw:
        found = [symbolic_size(size, self.rows) for size in meta.shape]
        plain = [size for size in found if isinstance(size, int) or size == Rows()]
        if len(plain) < len(found) or found.count(Rows()) > 1:
            return Raw(tensor)
        return from_tensor(self.w, tensor)

    def _tensors(self, arguments: Any) -> Any:
        def convert(leaf: Any) -> Any:
            if isinstance(leaf, Rows):
                return self.w.program.size(leaf)
            return self._tensor(leaf) if isinstance(leaf, Value | Raw) else leaf

        return pytree.tree_map(convert, arguments, is_leaf=lambda leaf: _is_value(leaf) or isinstance(leaf, Rows))

    def _tensor(self, value: Value | Raw) -> Expr:
        return value.tensor if isinstance(value, Raw) else to_tensor(self.w, value)

    def _name(self) -> str:
        return self._node.name if self._node else ""

    def _log(self, op: str, rule: str = "", refusal: str = "") -> None:
        self.result.decisions.append(Decision(self._name(), op, rule, refusal))


VIEWS = frozenset({aten.view.default, aten._unsafe_view.default})
"""Reshapes that ask for strides; a tiled tensor has others than the model's."""


REINTERPRETING = frozenset({aten.view_as_complex.default, aten.view.dtype})
"""Views that read neighbouring elements as one, which have to lie side by side."""


def _is_value(leaf: Any) -> bool:
    return isinstance(leaf, Value | Raw | Rows | Expr)


def _forces(target: Any) -> bool:
    """Whether a reader of this kind evaluates what it reads."""
    rule = RULES.get(target)
    if rule is None:
        return True
    if target in (aten.add.Tensor, aten.mul.Tensor, aten.mul.Scalar, aten.add.Scalar):
        return False
    return rule.family in ("elementwise", "normalization", "softmax")


def constant_value(w: Workspace, tensor: torch.Tensor) -> Value:
    """A small tensor known when compiling, as a value."""
    value = from_tensor(w, w.program.constant(tensor))
    return Value(value.groups, value.node, tensor)
