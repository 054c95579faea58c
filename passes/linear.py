"""Linear layers.

    W [x_c; x_t] + b = (W_c x_c + b) + W_t x_t        (MaRI; eq. 14 of the DCN V2 decomposition)

The columns of W are permuted once per model version, in whatever order the fields stand; activations never move.
"""

from __future__ import annotations

from collections.abc import Sequence

from rankopt.passes.bilinear import matmul
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


@rule(aten.conv1d.default, law="conv1d(x, W[o, i, 1]) = W x over channels")
def conv1d(
    w: Workspace,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Value:
    """`[n, i, l] -> [n, o, l]` with a weight `[o, i, 1]`, as CIN is often spelled."""
    plain = list(stride) == [1] and (padding == "valid" or list(padding) == [0]) and groups == 1
    if weight.shape[2] != 1 or not plain or x.ndim != 3:
        raise Refusal("a convolution wider than one mixes neighbours")
    product = matmul(w, Value(weight.groups[:2], weight.node), x)
    return product if bias is None else add(w, product, Value((*bias.groups, ()), bias.node))
