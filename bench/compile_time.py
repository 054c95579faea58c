"""What does optimising cost? `optimize()` against torch.export alone, in time and memory.

    python bench/compile_time.py

Writes bench/results/compile_time.json: for each headline model the times, and for a model with a 2 GB embedding table
the memory that optimising, verification included, needs beyond the model, and the size of the saved file.
"""

from __future__ import annotations

import logging
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

REPEATS = 3
ROWS = 50


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


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
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
