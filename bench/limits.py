"""How near to this machine's limits is what we emit?

    python bench/limits.py [--only headline/dlrm] [--candidates 512] [--threads 2 1] [--seconds 400]

First the machine: the quickest large matrix product, and the quickest sum of two vectors, long ones from memory and
short ones from the caches. Then, per model, every op as it is run eagerly: its multiply-adds at the peak of products,
or its bytes (what it reads and writes, views are free) at the peak of the memory, whichever takes longer. The sum is a
time that no run of these ops can beat by much; how near measured times come to it says what is left in dispatch, small
products and strided reads. The original and the expert are judged alike. Writes bench/results/limits.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from contenders import Scene, entries
from running import Clock, Run, heap_of, warm_heap
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankopt.cost import FREE

WHO = ("original", "expert", "rankopt")
CACHED = 4 << 20
"""Bytes up to which an op is taken to find its operands in the caches."""

aten = torch.ops.aten
PRODUCTS = {
    aten.mm: 1,
    aten.bmm: 1,
    aten.addmm: 2,
    aten.addmm_: 2,
    aten.baddbmm: 2,
    aten.baddbmm_: 2,
    aten.mv: 1,
    aten.addmv: 2,
}
"""The products, and at which place their second factor stands."""
VIEWS = frozenset(op.overloadpacket for op in FREE) | {aten.detach, aten.as_strided, aten._reshape_alias, aten.empty}


@dataclass(frozen=True, slots=True)
class Machine:
    """Peaks, measured with as many threads as torch has."""

    gflops: float
    memory_gb: float
    cache_gb: float

    def microseconds(self, flops: float, read_and_written: float) -> float:
        """What an op takes at the peaks."""
        rate = self.cache_gb if read_and_written <= CACHED else self.memory_gb
        return max(flops / self.gflops, read_and_written / rate) / 1e3


def measure_machine(seconds: float) -> Machine:
    """The best of many runs: a peak is not a median."""
    size = 1536
    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    product = best(lambda: torch.mm(a, b, out=out), seconds / 2)
    rates = []
    for count in (16 << 20, 128 << 10):
        x, y, z = torch.randn(count), torch.randn(count), torch.empty(count)
        rates.append(12 * count / best(partial(torch.add, x, y, out=z), seconds / 4) / 1e9)
    return Machine(2 * size**3 / product / 1e9, *rates)


def best(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of the quickest of the calls that fit, of ten at least."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


@dataclass
class Ops(TorchDispatchMode):
    """Adds up the ops that run under it: their number, FLOPs of products, bytes, and their time at the peaks."""

    machine: Machine
    count: int = 0
    flops: float = 0.0
    moved: float = 0.0
    us: float = 0.0
    bound_by_memory: float = field(default=0.0)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in VIEWS:
            return result
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.overloadpacket is aten.embedding:
            read = [args[1], *written]  # of the table only the rows that are looked up
        moved = sum(bytes_of(tensor) for tensor in (*read, *written))
        flops = self._flops(func.overloadpacket, args, written)
        us = self.machine.microseconds(flops, moved)
        self.count, self.flops, self.moved, self.us = (
            self.count + 1,
            self.flops + flops,
            self.moved + moved,
            self.us + us,
        )
        if flops / self.machine.gflops / 1e3 < us:
            self.bound_by_memory += us
        return result

    @staticmethod
    def _flops(op: Any, args: Any, written: Sequence[Tensor]) -> float:
        """Two for each multiply-add of a product, and of the two products of an attention."""
        if op is aten._scaled_dot_product_flash_attention_for_cpu:
            return 2.0 * (args[0].numel() + written[0].numel()) * args[1].shape[-2]
        if op not in PRODUCTS:
            return 0.0
        inner = -1 if op in (aten.mv, aten.addmv) else -2
        return 2.0 * written[0].numel() * args[PRODUCTS[op]].shape[inner]


def bytes_of(tensor: Tensor) -> float:
    """Of the elements that there are; what is broadcast is read once."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return float(math.prod(sizes) * tensor.element_size())


def measure(key: str, candidates: int, clock: Clock) -> dict[str, Any]:
    """For everybody the least time that their ops can take, and the time that they take."""
    scene = Scene.of(entries()[key], candidates)
    machine = measure_machine(min(clock.share(4), 4.0))
    warm_heap()
    eager = {name: call for name, call in scene.eager().items() if name in WHO}
    found: dict[str, Any] = {}
    with torch.no_grad():
        for name, call in eager.items():
            with Ops(machine) as ops:
                call()
            found[name] = {
                "ops": ops.count,
                "mflop": ops.flops / 1e6,
                "mb": ops.moved / 1e6,
                "least ms": ops.us / 1e3,
                "of memory": ops.bound_by_memory / max(ops.us, 1e-9),
            }
        times = {"eager": heap_of(eager, clock.share(2))}
        times["onnxruntime"] = heap_of(scene.onnxruntime(torch.get_num_threads(), WHO), clock.share(1))
    near = {
        backend: {name: found[name]["least ms"] / timing.median for name, timing in of_backend.items()}
        for backend, of_backend in times.items()
    }
    sentence = "; ".join(f"{backend}: rankopt at {of['rankopt']:.0%} of the limit" for backend, of in near.items())
    return {
        "model": key,
        "candidates": candidates,
        "machine": machine,
        "limits": found,
        "milliseconds": times,
        "reached": near,
        "sentence": sentence,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    def add(parser: Any) -> None:
        parser.add_argument("--candidates", type=int, default=512)

    run = Run.of("limits", __doc__, arguments, add)
    options = run.options
    count = 16 if options.quick else options.candidates
    keys = ["zoo/dnn"] if options.quick else list(entries())
    run.measure(
        {
            f"{key}, threads={threads}": (threads, partial(measure, key, count))
            for threads in (options.threads[:1] if options.quick else options.threads)
            for key in keys
        }
    )


if __name__ == "__main__":
    main()
