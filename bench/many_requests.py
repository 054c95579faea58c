"""Many requests in one call against the original on tiled rows, and against one call per request.

    python bench/many_requests.py [--only dlrm] [--requests 1 4 16] [--candidates 64] [--threads 2 1] [--seconds 600]

Two batches per number of requests: all with the same number of candidates (dense), and lengths between a quarter and
seven quarters of it, ungrouped (ragged). In eager mode, and in ONNX Runtime through the files that `export` writes.
One request is also called as the ranker is ("one by one"): what many-request calls cost beyond that is seen there.
Writes bench/results/many_requests.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from models import Subject, headline
from running import Clock, Run, heap_of, warm_heap
from serving import OnnxCall, RowsModel, onnx_session
from torch import Tensor

import rankopt
from rankopt.ranker import Ranker

Inputs = dict[str, Tensor]
Scores = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of a call: each for itself, joined, and as tiled rows of the original in the same order."""

    ragged: bool
    each: tuple[tuple[Inputs, Inputs], ...]
    context: Inputs
    target: Inputs
    index: Inputs
    """request_of, of a ragged batch."""
    rows: Inputs

    @classmethod
    def of(cls, subject: Subject, lengths: Sequence[int], ragged: bool) -> Batch:
        each = tuple(subject.request(n, seed=1 + b) for b, n in enumerate(lengths))
        tiled = [subject.rows(context, target) for context, target in each]
        context = {name: torch.cat([own[name] for own, _ in each]) for name in each[0][0]}
        join = torch.cat if ragged else torch.stack
        target = {name: join([own[name] for _, own in each]) for name in each[0][1]}
        rows = {name: torch.cat([own[name] for own in tiled]) for name in tiled[0]}
        if not ragged:
            return cls(ragged, each, context, target, {}, rows)
        order = torch.randperm(sum(lengths), generator=torch.Generator().manual_seed(0))
        request_of = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[order]
        shuffled = [{name: tensor[order] for name, tensor in inputs.items()} for inputs in (target, rows)]
        return cls(ragged, each, context, shuffled[0], {"request_of": request_of}, shuffled[1])


def measure(subject: str, requests: int, ragged: bool, candidates: int, threads: int, clock: Clock) -> dict[str, Any]:
    """Times for one batch, in milliseconds, and how many times faster one call for all is."""
    model = next(own for own in headline() if own.name == subject)
    spread = [candidates * (1 + 6 * b // max(requests - 1, 1)) // 4 for b in range(requests)]
    batch = Batch.of(model, spread if ragged else [candidates] * requests, ragged)
    calls = {"eager": eager(model, batch, candidates), "onnxruntime": onnxruntime(model, batch, candidates, threads)}
    warm_heap()
    times = {}
    for done, (backend, of) in enumerate(calls.items()):
        with torch.no_grad():
            _require_same(of)
            times[backend] = heap_of(of, clock.share(len(calls) - done), least=3)
    ratios = {
        backend: {who: own[who].median / own["many"].median for who in ("original", "one by one")}
        for backend, own in times.items()
    }
    said = ", ".join(f"{backend} {own['original']:.2f}x" for backend, own in ratios.items())
    return {
        "model": subject,
        "kind": "ragged" if ragged else "dense",
        "requests": requests,
        "rows": len(next(iter(batch.rows.values()))),
        "milliseconds": times,
        "ratios": ratios,
        "sentence": said,
    }


def eager(subject: Subject, batch: Batch, candidates: int) -> dict[str, Scores]:
    """Everybody's scores in eager mode."""
    ranker = _ranker(subject, candidates, "eager")
    return {
        "original": lambda: [subject.model(batch.rows)],
        "one by one": lambda: [ranker(context, target) for context, target in batch.each],
        "many": lambda: [ranker.many(batch.context, batch.target, **batch.index)],
    }


def onnxruntime(subject: Subject, batch: Batch, candidates: int, threads: int) -> dict[str, Scores]:
    """Everybody's scores in ONNX Runtime."""
    ranker = _ranker(subject, candidates, "onnxruntime")
    rows = {f"features.{name}": tensor for name, tensor in batch.rows.items()}
    flat = {name: rows[name] for name in ranker.interface.call.names}
    original = onnx_session(RowsModel(subject.model, ranker.interface.call), flat, set(flat), threads)
    single = _exported(ranker, None, [*flat], threads)
    many = _exported(ranker, "request_of" if batch.ragged else "dense", [*flat, "request_of"], threads)
    joined = batch.context | batch.target | batch.index
    return {
        "original": lambda: original(flat),
        "one by one": lambda: [single(context | target)[0] for context, target in batch.each],
        "many": lambda: many(joined),
    }


def _ranker(subject: Subject, candidates: int, backend: str) -> Ranker:
    context, target = subject.request(50)
    return rankopt.optimize(
        subject.model, context, target, candidates=candidates, backend=backend, threads=torch.get_num_threads()
    )


def _exported(ranker: Ranker, many: str | None, names: Sequence[str], threads: int) -> OnnxCall:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranker.onnx"
        ranker.export(path, many=many)
        return OnnxCall(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]), names)


def _require_same(calls: dict[str, Scores]) -> None:
    """Raises AssertionError where the scores differ; rows of requests one by one come in another order."""
    original, many = (torch.as_tensor(calls[who]()[0]).flatten() for who in ("original", "many"))
    torch.testing.assert_close(many, original, rtol=1e-3, atol=1e-4)


def main(arguments: Sequence[str] | None = None) -> None:
    def add(parser: Any) -> None:
        parser.add_argument("--requests", nargs="*", type=int, default=[1, 4, 16])
        parser.add_argument("--candidates", type=int, default=64)

    run = Run.of("many_requests", __doc__, arguments, add)
    options = run.options
    models = ["autoint"] if options.quick else [own.name for own in headline()]
    counts = [2] if options.quick else options.requests
    count = 8 if options.quick else options.candidates
    run.measure(
        {
            f"{name}, {'ragged' if ragged else 'dense'}, B={requests}, threads={threads}": (
                threads,
                partial(measure, name, requests, ragged, count, threads),
            )
            for threads in (options.threads[:1] if options.quick else options.threads)
            for name in models
            for requests in counts
            for ragged in ((False, True) if requests > 1 else (False,))
        }
    )


if __name__ == "__main__":
    main()
