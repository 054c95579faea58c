"""Products of two activations, and of activations with weights: matmul, bmm, einsum, tensordot.

    Q K^T with Q, K = cat(context, target)  ->  a grid of four blocks, each of its own rank

A product stays pending; in which order it meets other products is decided by price (`rankopt.contraction`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rankopt import algebra, dims
from rankopt.axes import ROW, Axis, Group
from rankopt.passes.elementwise import common_dtype, to_dtype
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Value, freshen
from rankopt.workspace import Workspace


@rule(
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.mv.default,
    aten.dot.default,
    law="(a + b) C = a C + b C; cat(a, b) cat(c, d)^T = [a c^T, a d^T; b c^T, b d^T]",
)
def matmul(w: Workspace, x: Value, y: Value) -> Value:
    """`[..., i, k] @ [..., k, j] -> [..., i, j]`, with torch's broadcasting of leading dims and of 1-D operands."""
    vector_left, vector_right = x.ndim == 1, y.ndim == 1
    if vector_left:
        x = Value(((), *x.groups), x.node)
    if vector_right:
        y = Value((*y.groups, ()), y.node)
    ndim = max(x.ndim, y.ndim)
    letters = [chr(ord("a") + i) for i in range(ndim - 2)]
    left = [*letters[ndim - x.ndim :], "x", "k"]
    right = [*letters[ndim - y.ndim :], "k", "y"]
    out = [*letters, *([] if vector_left else ["x"]), *([] if vector_right else ["y"])]
    return product(w, [x, y], [left, right], out)


@rule(
    aten.einsum.default,
    law="einsum(cat(a, b), C) = cat(einsum(a, C), einsum(b, C)), or their sum if summed",
)
def einsum(w: Workspace, equation: str, operands: Sequence[Value], path: Sequence[int] | None = None) -> Value:
    """`einsum("bfd,de->bfe", x, w)`."""
    if "." in equation:
        raise Refusal("an ellipsis in an einsum")
    text = equation.replace(" ", "")
    inputs = [list(spec) for spec in text.split("->")[0].split(",")]
    letters = [letter for spec in inputs for letter in spec]
    if "->" in text:
        out = list(text.split("->")[1])
    else:
        out = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
    if any(len(set(spec)) < len(spec) for spec in inputs):
        raise Refusal("a diagonal in an einsum")
    return product(w, operands, inputs, out)


@rule(aten.tensordot.default, law="tensordot(x, y) = einsum(x, y), summed over the paired axes")
def tensordot(w: Workspace, x: Value, y: Value, dims_x: Sequence[int], dims_y: Sequence[int]) -> Value:
    """`tensordot(x, y, dims)`: the dims of x that are left, then those of y."""
    left = [f"x{i}" for i in range(x.ndim)]
    right = [f"y{i}" for i in range(y.ndim)]
    for i, j in zip(dims_x, dims_y, strict=True):
        right[y.dim(j)] = left[x.dim(i)]
    out = [name for name in (*left, *right) if (name in left) != (name in right)]
    return product(w, [x, y], [left, right], out)


def product(w: Workspace, values: Sequence[Value], specs: Sequence[Sequence[str]], out: Sequence[str]) -> Value:
    """The product of `values`, whose dims are named by `specs`, summed over the names that are not in `out`."""
    dtype = common_dtype(values)
    if not dtype.is_floating_point:
        raise Refusal("a product of integers")
    values = [to_dtype(w, value, dtype) for value in values]
    result, spec = values[0], list(specs[0])
    for i, (value, names) in enumerate(zip(values[1:], specs[1:], strict=True), start=2):
        later = {name for other in specs[i:] for name in other}
        kept = [n for n in dict.fromkeys((*spec, *names)) if n in out or n in later]
        result, spec = _product_of_two(w, result, spec, value, list(names), kept), kept
    if len(values) == 1 and set(spec) != set(out):
        result, spec = _sum_out(w, result, spec, out), [name for name in spec if name in out]
    return Value(tuple(result.groups[spec.index(name)] for name in out), result.node)


def _product_of_two(w: Workspace, x: Value, left: list[str], y: Value, right: list[str], kept: Sequence[str]) -> Value:
    y = freshen(w, y)
    shared = [name for name in left if name in right]
    for _ in range(2):
        for name in shared:
            i, j = left.index(name), right.index(name)
            if x.groups[i] and y.groups[j]:
                x, y = dims.refine(w, x, i, y, j)
    names: dict[Axis, Axis] = {}
    for name in shared:
        mine, theirs = x.groups[left.index(name)], y.groups[right.index(name)]
        if mine and theirs:
            names.update((old, new) for old, new in zip(theirs, mine, strict=True) if old is not new)
    if names:
        y = dims.rename_value(y, names)
    groups: dict[str, Group] = dict(zip(right, y.groups, strict=True))
    groups.update({n: g for n, g in zip(left, x.groups, strict=True) if g or n not in groups})
    _check_rows(groups, kept)
    summed = [axis for name, group in groups.items() if name not in kept for axis in group]
    node = algebra.contract(w, x.node, y.node, summed)
    return Value(tuple(groups[name] for name in kept), node)


def _sum_out(w: Workspace, x: Value, spec: Sequence[str], out: Sequence[str]) -> Value:
    gone = [axis for name, group in zip(spec, x.groups, strict=True) if name not in out for axis in group]
    if ROW in gone:
        raise Refusal("rows are summed")
    groups = tuple(group for name, group in zip(spec, x.groups, strict=True) if name in out)
    return Value(groups, algebra.total(w, x.node, gone))


def _check_rows(groups: dict[str, Group], kept: Sequence[str]) -> None:
    with_rows = [name for name, group in groups.items() if ROW in group]
    if any(name not in kept for name in with_rows):
        raise Refusal("rows are summed")
    if len(with_rows) > 1:
        raise Refusal("a product between rows")
