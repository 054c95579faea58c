"""What does optimising cost? `optimize()` against torch.export alone, in time and memory.

    python bench/compile_time.py
    python bench/compile_time.py --nodes

Writes bench/results/compile_time.json: for each headline model the times, and for a model with a 2 GB embedding table
the memory that optimising, verification included, needs beyond the model, and the size of the saved file.

With `--nodes` the graph grows, to 10,000 nodes: a loop over pairs of fields, unrolled, and a deep residual chain of
layers. Writes bench/results/compile_nodes.json: processor seconds of torch.export and of everything else.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import write
from models import headline
from torch import Tensor, nn

import rankopt
from rankopt.pipeline import capture_with_roles

REPEATS = 3
ROWS = 50
NODES = (500, 1000, 2000, 5000, 10000)


def seconds(call: Callable[[], Any]) -> float:
    """Median of a few calls; the first, which also warms torch up, does not count."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


class Large(nn.Module):
    """A ranker whose item table has 2 GB."""

    def __init__(self, items: int = 8_000_000, width: int = 64) -> None:
        super().__init__()
        self.items = nn.Embedding(items, width)
        self.users = nn.Embedding(1000, width)
        self.top = nn.Sequential(nn.Linear(2 * width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.top(torch.cat([self.users(user), self.items(item)], dim=1))


def large_table() -> dict[str, float]:
    """Memory beyond the model, and file sizes, in megabytes."""
    model = Large().eval()
    table = model.items.weight.numel() * 4 / 1e6
    user, item = torch.randint(0, 1000, (ROWS,)), torch.randint(0, 8_000_000, (ROWS,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    ranker = rankopt.optimize(model, context={"user": user[:1]}, target={"item": item})
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before
    with tempfile.TemporaryDirectory() as folder:
        rows = torch.export.Dim("rows")
        program = torch.export.export(model, (user, item), dynamic_shapes=({0: rows}, {0: rows}), strict=False)
        original, fast = Path(folder) / "model.pt2", Path(folder) / "fast.pt2"
        torch.export.save(program, original)
        ranker.save(fast)
        sizes = [os.path.getsize(path) / 1e6 for path in (original, fast)]
    return {"table_mb": table, "optimize_needs_mb": more, "file_before_mb": sizes[0], "file_after_mb": sizes[1]}


def export(model: nn.Module, features: dict[str, Tensor]) -> torch.export.ExportedProgram:
    """torch.export alone, for any number of rows."""
    rows = torch.export.Dim("rows")
    shapes = ({name: {0: rows} for name in features},)
    return torch.export.export(model, (features,), dynamic_shapes=shapes, strict=False)


# ------------------------------------------------------------------------------------------------------ large graphs


class Pairs(nn.Module):
    """Products of all pairs of `fields` fields, taken one by one."""

    def __init__(self, fields: int, width: int = 8) -> None:
        super().__init__()
        self.pairs = [(i, j) for i in range(fields) for j in range(i + 1, fields)]
        self.head = nn.Linear(len(self.pairs) * width, 16)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([context, target], dim=1)
        return self.head(torch.cat([x[:, i] * x[:, j] for i, j in self.pairs], dim=1)).relu()


class Chain(nn.Module):
    """A deep residual network."""

    def __init__(self, depth: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([context.flatten(1), target.flatten(1)], dim=1)
        for layer in self.layers:
            x = torch.relu(layer(x)) + x
        return x


def large_graphs() -> tuple[tuple[str, nn.Module, tuple[Tensor, Tensor]], ...]:
    """Both kinds of model with the five numbers of nodes, and an example request of each."""
    found: list[tuple[str, nn.Module, tuple[Tensor, Tensor]]] = []
    for nodes in NODES:
        fields = math.isqrt(2 * nodes // 5) + 1  # five nodes per pair
        request = torch.randn(1, fields - fields // 4, 8), torch.randn(ROWS, fields // 4, 8)
        found.append((f"pairs {nodes}", Pairs(fields).eval(), request))
        chain = Chain(nodes // 5).eval()  # three operators and two parameters per layer
        found.append((f"chain {nodes}", chain, (torch.randn(1, 2, 8), torch.randn(ROWS, 2, 8))))
    return tuple(found)


def processor_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that the processor spent on one call, however busy the machine is, and its result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def growth() -> dict[str, Any]:
    """Processor seconds by the size of the graph: torch.export alone, and the whole of optimize()."""
    results: dict[str, Any] = {}
    for name, model, (context, target) in large_graphs():
        inputs = {"context": context}, {"target": target}
        capturing, (captured, _) = processor_seconds(lambda: capture_with_roles(model, *inputs, None))  # noqa: B023
        whole, ranker = processor_seconds(lambda: rankopt.optimize(model, *inputs))  # noqa: B023
        emitted = sum(node.op == "call_function" for node in ranker.stages.whole.graph.nodes)
        results[name] = {
            "nodes": len(captured.graph_module.graph.nodes),
            "emitted": emitted,
            "capture_s": capturing,
            "optimize_s": whole,
            "rest_s": whole - capturing,
        }
        print(name, results[name], flush=True)
    return results


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", action="store_true", help="graphs of growing size instead of the headline models")
    if parser.parse_args().nodes:
        print(write("compile_nodes", growth()))
        return
    results: dict[str, Any] = {"large table": large_table()}
    print(results["large table"])
    for subject in headline():
        context, target = subject.request(ROWS)
        rows = subject.rows(context, target)
        exporting = seconds(lambda: export(subject.model, rows))  # noqa: B023
        optimizing = seconds(lambda: rankopt.optimize(subject.model, context, target))  # noqa: B023
        results[subject.name] = {"export_s": exporting, "optimize_s": optimizing, "ratio": optimizing / exporting}
        print(subject.name, results[subject.name], flush=True)
    print(write("compile_time", results))


if __name__ == "__main__":
    main()
