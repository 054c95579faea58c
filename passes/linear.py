"""Linear layers.

    W [x_c; x_t] + b = (W_c x_c + b) + W_t x_t        (MaRI; eq. 14 of the DCN V2 decomposition)

The columns of W are permuted once per model version, in whatever order the fields stand; activations never move.
"""

from __future__ import annotations

from collections.abc import Sequence

from rankopt.passes.bilinear import matmul, product
from rankopt.passes.elementwise import add, mul
from rankopt.program import aten
from rankopt.rules import Refusal, rule
from rankopt.values import Value
from rankopt.workspace import Workspace


@rule(aten.linear.default, law="W [x_c; x_t] + b = (W_c x_c + b) + W_t x_t")
def linear(w: Workspace, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """`[..., d] -> [..., u]`."""
    product = matmul(w, x, Value(weight.groups[::-1], weight.node))
    return product if bias is None else add(w, product, bias)


@rule(aten.addmm.default, aten.baddbmm.default, law="W [x_c; x_t] + b = (W_c x_c + b) + W_t x_t")
def addmm(w: Workspace, bias: Value, x: Value, y: Value, beta: float = 1, alpha: float = 1) -> Value:
    """`beta * bias + alpha * x @ y`."""
    product = matmul(w, x, y)
    if alpha != 1:
        product = mul(w, product, alpha)
    return add(w, product, bias if beta == 1 else mul(w, bias, beta))


@rule(
    aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding,
    law="conv(x, W[o, i, 1]) = W x over channels",
)  # fmt: skip
def convolution(
    w: Workspace,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Value:
    """`[n, i, *places] -> [n, o, *places]` with a weight `[o, i, 1, ..]`, as CIN is often spelled."""
    plain = set(stride) == {1} and (isinstance(padding, str) or set(padding) == {0}) and groups == 1
    if set(weight.shape[2:]) != {1} or not plain or x.ndim != weight.ndim:
        raise Refusal("a convolution wider than one mixes neighbours")
    places = [f"place {i}" for i in range(x.ndim - 2)]
    channels = Value(weight.groups[:2], weight.node)
    result = product(w, [channels, x], [["out", "in"], ["row", "in", *places]], ["row", "out", *places])
    return result if bias is None else add(w, result, Value((*bias.groups, *[()] * len(places)), bias.node))


@rule(aten.convolution.default, law="conv(x, W[o, i, 1]) = W x over channels")
def convolution_decomposed(
    w: Workspace,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """The form that convolutions have after decomposition."""
    if transposed:
        raise Refusal("a transposed convolution")
    return convolution(w, x, weight, bias, stride, padding, dilation, groups)
