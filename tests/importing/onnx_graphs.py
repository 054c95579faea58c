"""Small ONNX graphs, written as exporters of several frameworks write them, and run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

ELEMENTS = {np.dtype("float64"): TensorProto.DOUBLE, np.dtype("float32"): TensorProto.FLOAT}
ELEMENTS |= {np.dtype("int64"): TensorProto.INT64, np.dtype("int32"): TensorProto.INT32}
ELEMENTS |= {np.dtype("bool"): TensorProto.BOOL}


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    opset: int = 18,
) -> onnx.ModelProto:
    """A model over rows: dim 0 of every input is free."""
    declared = [
        helper.make_tensor_value_info(name, ELEMENTS[rows.dtype], ["batch", *rows.shape[1:]] if rows.ndim else [])
        for name, rows in inputs.items()
    ]
    made = helper.make_graph(
        list(nodes),
        "ranker",
        declared,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.array(weight, order="C"), name) for name, weight in weights.items()],
    )
    made = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    made = onnx.shape_inference.infer_shapes(made)
    for output in made.graph.output:
        if not output.type.WhichOneof("value"):
            output.type.tensor_type.elem_type = TensorProto.FLOAT
    return made


def run(model: onnx.ModelProto | Path, inputs: Mapping[str, Any]) -> list[np.ndarray]:
    given = model if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(given, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {name: np.asarray(rows) for name, rows in inputs.items()})
    return found


def tensors(rows: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(values)) for name, values in rows.items()}


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node, its names separated by blanks; `_` is an input that is left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


# ------------------------------------------------------------------------------------------------------ frameworks

DRAW = np.random.default_rng(0)
USERS, ITEMS, WIDTH = 40, 50, 8


def floats(*shape: int) -> np.ndarray:
    return (DRAW.standard_normal(shape) * 0.4).astype(np.float32)


def keras() -> onnx.ModelProto:
    """As tf2onnx writes a Keras model: int32 ids, [batch, 1] columns, MatMul and Add, shapes computed from shapes."""
    inputs = {
        "user_id:0": np.zeros((2, 1), np.int32),
        "item_id:0": np.zeros((2, 1), np.int32),
        "dense": floats(2, 4),
    }
    weights = {
        "model/user/embedding:0": floats(USERS, WIDTH),
        "model/item/embedding:0": floats(ITEMS, WIDTH),
        "model/dense/kernel:0": floats(2 * WIDTH + 4, 32),
        "model/dense/bias:0": floats(32),
        "model/out/kernel:0": floats(32, 1),
        "model/out/bias:0": floats(1),
        "one": np.array([1], np.int64),
        "zero": np.array([0], np.int64),
        "wide": np.array([2 * WIDTH], np.int64),
    }
    nodes = [
        node("Gather", "model/user/embedding:0 user_id:0", "user"),
        node("Gather", "model/item/embedding:0 item_id:0", "item"),
        node("Concat", "user item", "pair", axis=-1),
        node("Shape", "pair", "shape"),
        node("Slice", "shape zero one zero", "batch"),
        node("Concat", "batch wide", "flat_shape", axis=0),
        node("Reshape", "pair flat_shape", "flat"),
        node("Concat", "flat dense", "x", axis=1),
        node("MatMul", "x model/dense/kernel:0", "h0"),
        node("Add", "h0 model/dense/bias:0", "h1"),
        node("Relu", "h1", "h"),
        node("MatMul", "h model/out/kernel:0", "o0"),
        node("Add", "o0 model/out/bias:0", "logit"),
        node("Sigmoid", "logit", "Identity:0"),
    ]
    return graph(nodes, inputs, weights, ["Identity:0"], opset=15)


def paddle() -> onnx.ModelProto:
    """As paddle2onnx writes it, in an old version: axes as attributes, Softmax of two dims, a chain of constants."""
    inputs = {"history": np.zeros((2, 6), np.int64), "item": np.zeros((2,), np.int64), "price": floats(2, 1)}
    weights = {"emb": floats(ITEMS, WIDTH), "w": floats(WIDTH + 1, 1), "slope": np.array([0.2], np.float32)}
    half = numpy_helper.from_array(np.array(0.5, np.float32))
    nodes = [
        node("Gather", "emb history", "h"),
        node("Gather", "emb item", "t"),
        node("Unsqueeze", "t", "t1", axes=[1]),
        node("Mul", "h t1", "ht"),
        node("ReduceSum", "ht", "s", axes=[2], keepdims=0),
        node("Constant", "", "half", value=half),
        node("Mul", "s half", "scaled"),
        node("Softmax", "scaled", "a", axis=1),
        node("Unsqueeze", "a", "a1", axes=[2]),
        node("Mul", "h a1", "ha"),
        node("ReduceSum", "ha", "pooled", axes=[1], keepdims=0),
        node("Concat", "pooled price", "x", axis=1),
        node("MatMul", "x w", "y"),
        node("PRelu", "y slope", "p"),
        node("Clip", "p half", "score"),
    ]
    return graph(nodes, inputs, weights, ["score"], opset=11)


def sklearn() -> onnx.ModelProto:
    """As skl2onnx writes a pipeline: one packed input, scaled, then a perceptron of Gemm, and two outputs."""
    inputs = {"X": floats(2, 10)}
    weights = {"mean": floats(10), "scale": np.abs(floats(10)) + 0.5, "c1": floats(10, 16), "i1": floats(16)}
    weights |= {"c2": floats(1, 16), "i2": floats(1)}
    nodes = [
        node("Sub", "X mean", "centred"),
        node("Div", "centred scale", "x"),
        node("Gemm", "x c1 i1", "h0", alpha=1.0, beta=1.0),
        node("Tanh", "h0", "h"),
        node("Gemm", "h c2 i2", "logit", transB=1),
        node("Sigmoid", "logit", "p"),
        node("Sub", "one p", "q"),
        node("Concat", "q p", "probabilities", axis=1),
        node("ArgMax", "probabilities", "label", axis=1, keepdims=0),
    ]
    return graph(nodes, inputs, weights | {"one": np.array(1.0, np.float32)}, ["label", "probabilities"], opset=13)


FRAMEWORKS = {"keras": (keras, ["user_id*"]), "paddle": (paddle, ["history"]), "sklearn": (sklearn, ["X[:, :6]"])}
"""A model by what wrote it, and which of its inputs are the request's."""
