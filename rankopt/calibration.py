"""Calibration: the prices of this machine, measured.

Each price is the time of one small probe, or the difference of two; a probe runs as a single call of the backend. Takes
some seconds, with torch.compile a minute, on one thread: prices are compared with each other, and all calls share
threads alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from typing import Any, Protocol

import numpy as np
import torch

from rankopt.backends import EAGER, INDUCTOR, ONNX_RUNTIME
from rankopt.compiler import require_compiler, with_own_code
from rankopt.exporting import tracing_conditions
from rankopt.prices import Profile

Array = np.ndarray[Any, Any]
Probe = Callable[[], object]

SECONDS = 0.15
"""How long each probe is repeated."""


CALLS = 1.6
"""How much longer dispatch takes among calls of many kinds than in a chain of one."""


class Backend(Protocol):
    """Builds single calls."""

    base: Profile

    def call(self, op: str, *arrays: Array, **options: Any) -> Probe:
        """A function that runs `op` on the arrays once."""
        ...


TORCH: dict[str, Callable[..., Any]] = {
    "add": torch.add, "multiply": torch.mul, "relu": torch.relu, "exp": torch.exp, "matmul": torch.matmul,
    "softmax": lambda x: torch.softmax(x, -1), "softmax of columns": lambda x: torch.softmax(x, -2),
    "sum": lambda x: torch.sum(x, -1), "max": lambda x: torch.amax(x, -1),
    "cat": lambda *xs: torch.cat(xs, -1), "take": lambda x, i: torch.index_select(x, 1, i),
}  # fmt: skip

ONNX = {
    "add": "Add", "multiply": "Mul", "relu": "Relu", "exp": "Exp", "matmul": "MatMul", "softmax": "Softmax",
    "sum": "ReduceSum", "max": "ReduceMax", "cat": "Concat", "take": "Gather", "permute": "Transpose",
}  # fmt: skip


class EagerBackend:
    """PyTorch, call by call."""

    base = EAGER

    def call(self, op: str, *arrays: Array, **options: Any) -> Probe:
        """One torch function."""
        tensors = [torch.from_numpy(array) for array in arrays]
        if op == "permute":
            return lambda: tensors[0].permute(options["order"]).contiguous()
        if op == "view":
            return lambda: tensors[0].permute(1, 0)
        if op == "chain":
            return lambda: reduce(lambda x, _: torch.relu(x), range(options["length"]), tensors[0])
        function = TORCH[op]
        return lambda: function(*tensors)


class InductorBackend:
    """PyTorch, each probe compiled by torch.compile. Raises ExportError where there is no C++ compiler."""

    base = INDUCTOR

    def __init__(self) -> None:
        require_compiler(
            "the prices of torch.compile are measured on compiled calls",
            "take the prices that are built in, `--backend inductor` of `optimize`",
        )

    def call(self, op: str, *arrays: Array, **options: Any) -> Probe:
        """One compiled function. A chain of elementwise calls would be one loop, so products lie between them."""
        tensors = [torch.from_numpy(array) for array in arrays]
        if op == "view":
            return lambda: None
        if op == "permute":
            return _compiled(lambda x: x.permute(options["order"]).contiguous(), tensors)
        if op == "chain":
            square = torch.eye(len(arrays[0]))
            pairs = range(options["length"] // 2)
            return _compiled(lambda x: reduce(lambda y, _: torch.relu(y @ square), pairs, torch.relu(x)), [square])
        return _compiled(lambda *xs: TORCH[op](*xs), tensors)


def _compiled(function: Any, tensors: list[torch.Tensor]) -> Probe:
    with tracing_conditions():
        compiled = torch.compile(with_own_code(function), dynamic=False)
        compiled(*tensors)
    return lambda: compiled(*tensors)


class OnnxRuntimeBackend:
    """ONNX Runtime's CPU provider: a session of one node per probe."""

    base = ONNX_RUNTIME

    def call(self, op: str, *arrays: Array, **options: Any) -> Probe:
        """One node; the right operand of a product, an index and a list of dims are constants."""
        if op == "view":
            return lambda: None
        if op == "chain":
            return _onnx_session("Relu", arrays, {}, {}, options["length"])
        attributes: dict[str, Any] = {}
        constants: dict[int, Array] = {1: arrays[1]} if op in ("matmul", "take") and len(arrays) > 1 else {}
        if op in ("sum", "max"):
            arrays, constants = (*arrays, np.array([-1])), {1: np.array([-1])}
        elif op == "permute":
            attributes["perm"] = list(options["order"])
        elif op in ("cat", "take", "softmax"):
            attributes["axis"] = 1 if op == "take" else -1
        return _onnx_session(ONNX[op], arrays, constants, attributes)


def _onnx_session(
    op: str, arrays: tuple[Array, ...], constants: dict[int, Array], attributes: dict[str, Any], length: int = 1
) -> Probe:
    """A session that runs a node, or a chain of `length` of them."""
    import onnx
    import onnxruntime

    kinds = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.int64): onnx.TensorProto.INT64}
    names = [f"x{i}" for i in range(len(arrays))]
    given = [i for i in range(len(arrays)) if i not in constants]
    inputs = [onnx.helper.make_tensor_value_info(names[i], kinds[arrays[i].dtype], arrays[i].shape) for i in given]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    stored = [onnx.numpy_helper.from_array(array, names[i]) for i, array in constants.items()]
    results = [*(f"y{i}" for i in range(1, length)), "y"]
    chain = [names, *([name] for name in results)]
    nodes = [onnx.helper.make_node(op, source, [y], **attributes) for source, y in zip(chain, results, strict=False)]
    graph = onnx.helper.make_graph(nodes, op, inputs, [output], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for i in given:
        binding.bind_ortvalue_input(names[i], onnxruntime.OrtValue.ortvalue_from_numpy(arrays[i]))
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


BACKENDS: dict[str, Callable[[], Backend]] = {
    "eager": EagerBackend, "inductor": InductorBackend, "onnxruntime": OnnxRuntimeBackend
}  # fmt: skip


def calibrate(backend: str) -> Profile:
    """The profile of a backend on this machine.

    Raises KeyError for a backend that is not in `BACKENDS`, ExportError where one lacks a compiler.
    """
    with _one_thread(), torch.no_grad():
        return _Calibration(BACKENDS[backend]()).profile()


class _Calibration:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.random = np.random.default_rng(0)
        self.empty = self.time("relu", (16,))

    def profile(self) -> Profile:
        """All prices, in an order in which each needs only those before it."""
        base = self.backend.base
        multiply_add = self.product(512, 512, 512) / 512**3
        element = self.each("add", (512, 640), (512, 640))
        gather = self.each("cat", (512, 320), (512, 320), written=512 * 640)
        exchange = self.each("permute", (512, 6, 2, 16), order=(0, 2, 1, 3))
        small, large = self.batch(16, 32, 16), self.batch(32, 32, 32)
        per_product = (large - small) / (32**3 - 16 * 32 * 16)
        matrix = max(small - per_product * 16 * 32 * 16, 1.0)
        square = self.each("permute", (512, 640), order=(1, 0))
        long, short = self.each("softmax", (256, 1024)), self.each("softmax", (16384, 16))
        read = self.each("sum", (64, 4096))
        reduced = max((self.each("sum", (16384, 20)) - read) * 20, 0.1)
        return replace(
            base,
            name=f"{base.name}, measured",
            call=CALLS * (self.time("chain", (16,), length=65) - self.time("chain", (16,), length=1)) / 64,
            view=max(self.seconds(self.backend.call("view", self.array((4, 4)))), base.view / 4) if base.view else 0.0,
            multiply_add=multiply_add,
            narrow=tuple((below, self.factor(2048, width, multiply_add)) for below, width in _widths(base.narrow)),
            short=tuple((below, self.factor(height, 2048, multiply_add)) for below, height in _widths(base.short)),
            matrix=matrix,
            small_multiply_add=per_product,
            ragged=max((self.batch(16, 8, 6) - matrix - per_product * 16 * 8 * 16) / 16, 0.0),
            element=element,
            broadcast=max((self.each("multiply", (4096, 1), (1, 16), written=4096 * 16) - element) * 16, 0.1),
            function=self.each("exp", (512, 640)),
            norm=long,
            norm_row=max((short - long) * 16, 1.0),
            short_softmax=self.each("softmax", (16384, 4)) if base.short_softmax else 0.0,
            ragged_softmax=self.each("softmax of columns", (2048, 32, 8)) if base.ragged_softmax else 0.0,
            read=read,
            reduced=reduced,
            maximum=max(self.each("max", (16384, 24)) - read - reduced / 24, 0.01),
            gather=gather,
            picked=max(self.taken(640, 1) - gather, 0.01),
            row=max(4 * (self.taken(160, 4) - gather), 0.1),
            run=max((exchange - gather) * 16, 0.1),
            moved=self.each("permute", (512, 6, 2, 16), order=(2, 0, 3, 1)),
            transposed=square,
            plane=base.plane,  # what it costs to wake a thread for each, which one thread does not show
        )

    def array(self, shape: tuple[int, ...]) -> Array:
        return self.random.standard_normal(shape, dtype=np.float32)

    def time(self, op: str, *shapes: tuple[int, ...], **options: Any) -> float:
        """Nanoseconds of one call."""
        return self.seconds(self.backend.call(op, *map(self.array, shapes), **options))

    def each(self, op: str, *shapes: tuple[int, ...], written: int = 0, **options: Any) -> float:
        """Nanoseconds per element, without dispatch."""
        count = written or int(np.prod(shapes[0]))
        return max(self.time(op, *shapes, **options) - self.empty, 1.0) / count

    def product(self, rows: int, inner: int, columns: int) -> float:
        """Nanoseconds of one product, without dispatch."""
        return max(self.time("matmul", (rows, inner), (inner, columns)) - self.empty, 1.0)

    def batch(self, rows: int, inner: int, columns: int, count: int = 1024) -> float:
        """Nanoseconds per matrix in a batch."""
        return max(self.time("matmul", (count, rows, inner), (count, inner, columns)) - self.empty, 1.0) / count

    def taken(self, count: int, run: int) -> float:
        """Nanoseconds per element, half of which are gathered in runs of `run`."""
        index = self.random.permutation(count)[: count // 2].astype(np.int64)
        shape = (512, count) if run == 1 else (512, count, run)
        probe = self.backend.call("take", self.array(shape), index)
        return (self.seconds(probe) - self.empty) / (512 * len(index) * run)

    def factor(self, rows: int, columns: int, multiply_add: float) -> float:
        """How many times dearer than in a large product a multiply-add is."""
        return max(self.product(rows, 256, columns) / (256 * rows * columns * multiply_add), 1.0)

    @staticmethod
    def seconds(probe: Probe) -> float:
        """Nanoseconds of processor time that a probe takes (lower quartile), whatever else the machine is doing."""
        for _ in range(3):
            probe()
        times: list[int] = []
        stop = time.perf_counter() + SECONDS
        while time.perf_counter() < stop or len(times) < 8:
            begin = time.process_time_ns()
            probe()
            times.append(time.process_time_ns() - begin)
        return statistics.quantiles(times, n=4)[0]


def _widths(bounds: tuple[tuple[int, float], ...]) -> list[tuple[int, int]]:
    """For each upper bound a width in the middle of what it bounds."""
    lower = [1, *(below for below, _ in bounds)]
    return [(below, (below - 1 + start + 1) // 2) for (below, _), start in zip(bounds, lower, strict=False)]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
