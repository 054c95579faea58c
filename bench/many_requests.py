"""Many requests in one call against the original on tiled rows, and against one call per request.

    python bench/many_requests.py [--models dlrm ...] [--requests 1 4 16] [--candidates 64] [--threads 2]

Two batches per number of requests: all with the same number of candidates (dense), and lengths between a quarter and
seven quarters of it, ungrouped (ragged). Everything runs in one process, in turn. Writes
bench/results/many_requests.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from harness import interleaved, write
from models import Subject, headline
from torch import Tensor

import rankopt
from rankopt.ranker import Ranker

Inputs = dict[str, Tensor]


def measure(subject: Subject, ranker: Ranker, requests: int, candidates: int, seconds: float) -> list[dict[str, Any]]:
    """Times for one batch of each kind, in milliseconds."""
    equal = [candidates] * requests
    spread = [candidates * (1 + 6 * b // max(requests - 1, 1)) // 4 for b in range(requests)]
    return [
        _measured(subject, ranker, equal, ragged=False, seconds=seconds),
        *([_measured(subject, ranker, spread, ragged=True, seconds=seconds)] if requests > 1 else []),
    ]


def _measured(subject: Subject, ranker: Ranker, lengths: list[int], ragged: bool, seconds: float) -> dict[str, Any]:
    pairs = [subject.request(n, seed=1 + b) for b, n in enumerate(lengths)]
    pairs = [(dict(context), dict(target)) for context, target in pairs]
    tiled = [subject.rows(context, target) for context, target in pairs]
    contexts = {name: torch.cat([context[name] for context, _ in pairs]) for name in pairs[0][0]}
    join = torch.cat if ragged else torch.stack
    targets = {name: join([target[name] for _, target in pairs]) for name in pairs[0][1]}
    rows = {name: torch.cat([each[name] for each in tiled]) for name in tiled[0]}
    options: dict[str, Any] = {}
    if ragged:
        order = torch.randperm(sum(lengths), generator=torch.Generator().manual_seed(0))
        options["request_of"] = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[order]
        targets = {name: tensor[order] for name, tensor in targets.items()}
        rows = {name: tensor[order] for name, tensor in rows.items()}

    def original() -> Tensor:
        return subject.model(rows)

    def one_by_one() -> list[Tensor]:
        return [ranker(context, target) for context, target in pairs]

    def many() -> Tensor:
        return ranker.many(contexts, targets, **options)

    calls: dict[str, Callable[[], Any]] = {"original": original, "one by one": one_by_one, "many": many}
    with torch.no_grad():
        torch.testing.assert_close(many().flatten(), original().flatten(), rtol=1e-4, atol=1e-5)
        timings = interleaved(calls, seconds=seconds)
    median = {name: timing.median for name, timing in timings.items()}
    return {
        "model": subject.name,
        "kind": "ragged" if ragged else "dense",
        "requests": len(lengths),
        "rows": sum(lengths),
        "plan": ranker.interface.policy,
        "milliseconds": timings,
        "against the original": median["original"] / median["many"],
        "against one call per request": median["one by one"] / median["many"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", help="names of the headline models; all by default")
    parser.add_argument("--requests", nargs="*", type=int, default=[1, 4, 16])
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="per batch")
    parser.add_argument("--name", default="many_requests")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results: list[dict[str, Any]] = []
    for subject in headline():
        if given.models and subject.name not in given.models:
            continue
        context, target = subject.request(50)
        ranker = rankopt.optimize(subject.model, context, target, candidates=given.candidates)
        for requests in given.requests:
            for found in measure(subject, ranker, requests, given.candidates, given.seconds):
                results.append(found)
                print(
                    f"{found['model']:24} {found['kind']:6} B={requests:<3} R={found['rows']:<5} "
                    f"original x{found['against the original']:.2f}, "
                    f"one by one x{found['against one call per request']:.2f}",
                    flush=True,
                )
    print(write(given.name, results))


if __name__ == "__main__":
    main()
