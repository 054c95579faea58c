"""Every operator against ONNX Runtime, for several numbers of rows, and as a graph whose number of rows is a symbol."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_graphs import graph, node, run, tensors

from rankopt.capture import capture
from rankopt.importing.elementwise import _BINARY, _UNARY
from rankopt.importing.model import import_onnx
from rankopt.importing.operators import OPERATORS
from rankopt.importing.reductions import _REDUCTIONS

DRAW = np.random.default_rng(3)
I64 = np.int64


def f(*shape: int) -> np.ndarray:
    return DRAW.standard_normal(shape).astype(np.float32)


def i(*values: Any) -> np.ndarray:
    return np.array(values, I64)


X = f(5, 3, 4)
IDS = DRAW.integers(0, 4, (5, 3)).astype(I64)
BOOLS = DRAW.random((5, 3, 4)) < 0.5

Case = tuple[str, list[onnx.NodeProto], dict[str, np.ndarray], dict[str, np.ndarray], int]


def case(
    op: str, inputs: str, rows: dict[str, np.ndarray], weights: dict[str, np.ndarray] | None = None, **attributes: Any
) -> Case:
    opset = attributes.pop("opset", 18)
    outputs = attributes.pop("outputs", "out")
    return op, [node(op, inputs, outputs, **attributes)], rows, weights or {}, opset


_DOMAIN = {"Log": np.abs(X) + 0.1, "Sqrt": np.abs(X), "Reciprocal": X + 3, "Asin": X / 9, "Acos": X / 9, "Not": BOOLS}
_NEW = {"Mish": 18, "HardSwish": 14}

CASES: list[Case] = [
    *(case(op, "x", {"x": _DOMAIN.get(op, X).astype(_DOMAIN.get(op, X).dtype)}) for op in _UNARY),
    *(case(op, "x y", {"x": BOOLS, "y": ~BOOLS[::-1]}) for op in ("And", "Or", "Xor")),
    *(case(op, "x y", {"x": X, "y": np.roll(X, 1)}) for op in _BINARY if op not in ("And", "Or", "Xor")),
    *(case(op, "x w", {"x": X}, {"w": f(4) + 3}) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, "w x", {"x": X + 9}, {"w": np.array(0.7, np.float32)}) for op in ("Add", "Sub", "Mul", "Div")),
    case("Div", "x w", {"x": IDS - 2}, {"w": i(2)}),
    case("Mod", "x w", {"x": IDS - 2}, {"w": i(3)}),
    case("Mod", "x w", {"x": X}, {"w": f(1) + 2}, fmod=1),
    case("Pow", "x w", {"x": X}, {"w": np.array(2.0, np.float32)}),
    case("Pow", "x w", {"x": np.abs(X)}, {"w": np.array(0.5, np.float32)}),
    case("Pow", "x w", {"x": np.abs(X)}, {"w": np.abs(f(4))}),
    case("Pow", "x w", {"x": IDS}, {"w": np.array(2.0, np.float32)}),
    *(case(op, "x y w", {"x": X, "y": X[::-1].copy()}, {"w": f(4)}) for op in ("Min", "Max", "Sum", "Mean")),
    case("Clip", "x", {"x": X}),
    case("Clip", "x low high", {"x": X}, {"low": np.array(-0.5, np.float32), "high": np.array(0.4, np.float32)}),
    case("Clip", "x _ high", {"x": X}, {"high": np.array(0.4, np.float32)}),
    case("LeakyRelu", "x", {"x": X}, alpha=0.3),
    case("PRelu", "x w", {"x": X}, {"w": f(4)}),
    case("Elu", "x", {"x": X}, alpha=1.3),
    case("Selu", "x", {"x": X}),
    case("Celu", "x", {"x": X}, alpha=1.7),
    case("ThresholdedRelu", "x", {"x": X}, alpha=0.4),
    case("HardSigmoid", "x", {"x": X}),
    case("Gelu", "x", {"x": X}, opset=20),
    case("Gelu", "x", {"x": X}, opset=20, approximate="tanh"),
    case("IsInf", "x", {"x": np.where(BOOLS, np.float32("inf"), X)}),
    case("IsInf", "x", {"x": np.where(BOOLS, -np.float32("inf"), X)}, detect_negative=0),
    case("Where", "c x w", {"c": BOOLS, "x": X}, {"w": f(4)}),
    case("Cast", "x", {"x": X * 3}, to=int(onnx.TensorProto.INT32)),
    case("CastLike", "x w", {"x": IDS}, {"w": f(1)}),
    case("Identity", "x", {"x": X}),
    case("Dropout", "x", {"x": X}, outputs="out mask"),
    # movement
    case("Reshape", "x w", {"x": X}, {"w": i(0, -1)}),
    case("Reshape", "x w", {"x": X}, {"w": i(-1, 2, 6)}),
    case("Flatten", "x", {"x": X}),
    case("Flatten", "x", {"x": X}, axis=2),
    case("Flatten", "x", {"x": X}, axis=-1),
    case("Transpose", "x", {"x": X}),
    case("Transpose", "x", {"x": X}, perm=[0, 2, 1]),
    case("Squeeze", "x w", {"x": X[:, :1]}, {"w": i(1)}),
    case("Squeeze", "x", {"x": X[:, :1]}, opset=11, axes=[1]),
    case("Unsqueeze", "x w", {"x": X}, {"w": i(0, -1)}),
    case("Unsqueeze", "x", {"x": X}, opset=11, axes=[1, 3]),
    case("Expand", "x w", {"x": X[:, :1]}, {"w": i(3, 1)}),
    case("Expand", "x w", {"x": X}, {"w": i(2, 1, 1, 1)}),
    case("Tile", "x w", {"x": X}, {"w": i(1, 2, 3)}),
    case("Concat", "x y", {"x": X, "y": X}, axis=-1),
    case("Split", "x w", {"x": X}, {"w": i(1, 3)}, axis=2, outputs="y z"),
    case("Split", "x", {"x": X}, axis=1, num_outputs=2, outputs="y z"),
    case("Split", "x", {"x": X}, axis=2, opset=11, split=[3, 1], outputs="y z"),
    case("Split", "x", {"x": X}, axis=2, opset=13, outputs="y z"),
    case("Slice", "x s e a", {"x": X}, {"s": i(1), "e": i(2**62), "a": i(2)}),
    case("Slice", "x s e a t", {"x": X}, {"s": i(-1, 0), "e": i(-9, -1), "a": i(2, 1), "t": i(-2, 1)}),
    case("Pad", "x w", {"x": X}, {"w": i(0, 1, 0, 0, 0, 2)}),
    case("Pad", "x w v a", {"x": X}, {"w": i(2, 1), "v": np.array(7, np.float32), "a": i(-1)}),
    case("Pad", "x w", {"x": X}, {"w": i(0, 0, 1, 0, 0, 2)}, mode="edge"),
    case("Pad", "x w", {"x": X}, {"w": i(0, 2, 1, 0, 1, 2)}, mode="reflect"),
    case("Pad", "x w", {"x": X}, {"w": i(0, 2, 1, 0, 1, 2)}, mode="wrap", opset=19),
    case("Trilu", "x", {"x": X}),
    case("Trilu", "x w", {"x": X}, {"w": np.array(-1, I64)}, upper=0),
    # lookups
    case("Gather", "w x", {"x": IDS}, {"w": f(4, 6)}),
    case("Gather", "w x", {"x": IDS.astype(np.int32)}, {"w": f(4, 6)}),
    case("Gather", "w x", {"x": IDS}, {"w": f(4)}),
    case("Gather", "w x", {"x": IDS}, {"w": f(4, 2, 3)}),
    case("Gather", "w x", {"x": IDS - 4}, {"w": f(2, 4)}, axis=1),
    case("Gather", "x w", {"x": X}, {"w": i(2, -1, 0)}, axis=1),
    case("Gather", "x w", {"x": X}, {"w": np.array(-1, I64)}, axis=2),
    case("Gather", "x w", {"x": X}, {"w": i([0, 1], [2, -2])}, axis=1),
    case("GatherElements", "x y", {"x": X[:, :, 0], "y": IDS % 3 - 1}, axis=1),
    case("GatherND", "x y", {"x": X, "y": (IDS % 3)[:, :, None]}, batch_dims=1),
    case("GatherND", "w y", {"y": IDS[:, :2]}, {"w": f(4, 4)}),
    case("ScatterND", "w y u", {"y": np.arange(5)[:, None], "u": f(5)}, {"w": f(99)}),
    case("OneHot", "x w v", {"x": IDS - 4}, {"w": np.array(6, I64), "v": np.array([0.5, 2], np.float32)}),
    case("OneHot", "x w v", {"x": IDS}, {"w": np.array([3], I64), "v": f(2)}, axis=1),
    case("TopK", "x w", {"x": X}, {"w": i(2)}, outputs="y z"),
    case("TopK", "x w", {"x": X}, {"w": i(2)}, outputs="y z", axis=1, largest=0),
    case("ArgMax", "x", {"x": IDS}, axis=1),
    case("ArgMax", "x", {"x": IDS}, axis=1, keepdims=0, select_last_index=1),
    case("ArgMin", "x", {"x": X}, axis=2),
    # reductions
    *(case(op, "x w", {"x": np.abs(X)}, {"w": i(1, 2)}, keepdims=0) for op in _REDUCTIONS),
    *(case(op, "x", {"x": np.abs(X)}, axes=[-1], opset=11) for op in _REDUCTIONS),
    case("ReduceSum", "x w", {"x": X}, {"w": np.zeros(0, I64)}, noop_with_empty_axes=1),
    case("CumSum", "x w", {"x": X}, {"w": np.array(1, I64)}),
    case("CumSum", "x w", {"x": X}, {"w": np.array(-1, I64)}, exclusive=1, reverse=1),
    *(case(op, "x", {"x": X}) for op in ("Softmax", "LogSoftmax")),
    *(case(op, "x", {"x": X}, axis=1, opset=11) for op in ("Softmax", "LogSoftmax")),
    # products
    case("MatMul", "x w", {"x": X}, {"w": f(4, 5)}),
    case("MatMul", "x w", {"x": X}, {"w": f(4)}),
    case("MatMul", "x y", {"x": X, "y": np.swapaxes(X, 1, 2).copy()}),
    case("Gemm", "x w b", {"x": X[:, 0]}, {"w": f(6, 4), "b": f(6)}, transB=1),
    case("Gemm", "x w b", {"x": X[:, 0]}, {"w": f(4, 6), "b": f(1)}, alpha=0.5, beta=2.0),
    case("Gemm", "x w", {"x": X[:, 0]}, {"w": f(4, 6)}),
    case("Einsum", "x w", {"x": X}, {"w": f(3, 4, 2)}, equation="b i j, i j k -> b k"),
    case("Conv", "x w b", {"x": X}, {"w": f(5, 3, 2), "b": f(5)}, pads=[1, 0]),
    case("Conv", "x w", {"x": X}, {"w": f(6, 1, 3)}, group=3, auto_pad="SAME_UPPER"),
    case("Conv", "x w", {"x": X}, {"w": f(6, 3, 2)}, auto_pad="SAME_LOWER", strides=[2]),
    # normalisation
    case("LayerNormalization", "x w b", {"x": X}, {"w": f(4), "b": f(4)}, epsilon=1e-3),
    case("LayerNormalization", "x w", {"x": X}, {"w": f(3, 4)}, axis=1),
    case("RMSNormalization", "x w", {"x": X}, {"w": f(4)}, opset=23),
    case("LpNormalization", "x", {"x": np.where(X[:, :, :1] > 0, X, 0)}),
    case("LpNormalization", "x", {"x": X}, p=1, axis=1),
    case(
        "BatchNormalization", "x w b m v", {"x": X}, {"w": f(3), "b": f(3), "m": f(3), "v": np.abs(f(3))}, epsilon=1e-2
    ),
    # shapes
    (
        "Range",
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Range", "zero n one", "r"),
            node("Cast", "r", "y", to=1),
        ],
        {"x": X[:, 0]},
        {"zero": np.array(0, I64), "one": np.array(1, I64)},
        18,
    ),
    ("Size", [node("Size", "x", "s"), node("Cast", "s", "y", to=1)], {"x": X}, {}, 18),
    (
        "ConstantOfShape",
        [
            node("Shape", "x", "s"),
            node("ConstantOfShape", "s", "c", value=onnx.numpy_helper.from_array(np.array([2.5], np.float32))),
            node("Add", "x c", "y"),
        ],
        {"x": X},
        {},
        18,
    ),
    (
        "Shape",
        [  # as torch's older exporter keeps the dims of an expand
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n axes", "n1"),
            node("Concat", "n1 three minus", "shape", axis=0),
            node("Shape", "shape", "rank"),
            node("ConstantOfShape", "rank", "ones", value=onnx.numpy_helper.from_array(i(1))),
            node("Mul", "ones minus", "negative"),
            node("Equal", "shape negative", "keep"),
            node("Where", "keep ones shape", "sizes"),
            node("Expand", "x sizes", "y"),
        ],
        {"x": X[:, :1]},
        {"zero": np.array(0, I64), "axes": i(0), "three": i(3), "minus": i(-1)},
        18,
    ),
    (
        "Shape",
        [
            node("Shape", "x", "s", start=1),
            node("ReduceProd", "s axes", "m", keepdims=0),
            node("Shape", "x", "whole"),
            node("Split", "whole", "n k l", num_outputs=3),
            node("Unsqueeze", "m axes", "m1"),
            node("Div", "m1 two", "m2"),
            node("Mul", "m2 two", "m3"),
            node("Concat", "n m3", "shape", axis=0),
            node("Reshape", "x shape", "y"),
        ],
        {"x": X},
        {"axes": i(0), "two": i(2)},
        18,
    ),
]
COVERED_ELSEWHERE = {"NonZero", "Compress", "Unique"}


def _names() -> list[str]:
    seen: dict[str, int] = {}
    names = []
    for op, *_ in CASES:
        seen[op] = seen.get(op, 0) + 1
        names.append(f"{op}-{seen[op]}")
    return names


@pytest.mark.parametrize(("op", "nodes", "rows", "weights", "opset"), CASES, ids=_names())
def test_operator(op: str, nodes: Any, rows: Any, weights: Any, opset: int) -> None:
    outputs = [name for name in nodes[-1].output if name != "mask"]
    made = graph(nodes, rows, weights, outputs, opset)
    model = import_onnx(made)
    captured = capture(model, (), tensors(rows))  # which compares with ONNX Runtime
    for count in (1, 2, 5):
        some = {name: np.ascontiguousarray(values[:count]) for name, values in rows.items()}
        with torch.no_grad():
            eager = list(model(**tensors(some)).values())
            placeholders = captured.graph_module.graph.find_nodes(op="placeholder")
            values = captured.arguments(tensors(some))
            graphed = captured.graph_module(*(values[n.name] for n in placeholders))
        for expected, *found in zip(run(made, some), eager, graphed, strict=True):
            for tensor in found:
                assert str(tensor.dtype).removeprefix("torch.") == str(expected.dtype)
                np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=2e-5, atol=2e-6)


def test_every_operator_has_a_case() -> None:
    tried = {n.op_type for _, nodes, *_ in CASES for n in nodes}
    assert set(OPERATORS) - COVERED_ELSEWHERE - tried == set()
