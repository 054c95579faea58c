"""What rewriting a trained model brings, on requests that real rows make up: identity, FLOPs, time."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.pipeline import optimize
from rankopt.ranker import Ranker
from rankopt.requests import Request, tile
from rankopt.verification import Verification
from rankopt.zoo.dataset import Dataset

CANDIDATES = 512
VERIFIED = (1, 64, CANDIDATES)
"""Candidates of the requests on which the rewritten model is compared with the original."""

PREFIX = "features."
"""Inputs of a model of the zoo are the entries of one dictionary."""


def measure(model: nn.Module, dataset: Dataset, *, timed: bool = True, seconds: float = 4.0) -> dict[str, Any]:
    """Facts about a trained model and what `rankopt.optimize` makes of it.

    FLOPs are those of matrix products (2 x multiply-adds), per candidate of a request of 512, the once part shared out
    among them. Times are medians of interleaved calls, on as many threads as torch has. Errors are relative to the
    largest score; `float32_ratio` says how many times further from float64 the rewritten scores are.
    """
    model = model.eval()
    requests = [real_request(dataset, candidates, seed) for seed, candidates in enumerate(VERIFIED)]
    served = requests[-1]
    begin = time.perf_counter()
    ranker = optimize(model, context=served.context, target=served.target, candidates=CANDIDATES)
    compiled = time.perf_counter() - begin
    verification = ranker.verify(requests)
    facts = {"optimise_seconds": round(compiled, 2)} | costs(ranker) | identity(verification)
    return facts | speed(model, ranker, served, seconds) if timed else facts


def real_request(dataset: Dataset, candidates: int, seed: int) -> Request:
    """The context of one test row, and the targets of others."""
    rows = dataset.test.first(len(dataset.test))
    generator = torch.Generator().manual_seed(seed)
    chosen = rows.take(torch.randint(len(rows), (1 + candidates,), generator=generator))
    context = {f"{PREFIX}{name}": chosen.features[name][:1] for name in dataset.schema.context}
    return Request(context, {f"{PREFIX}{name}": chosen.features[name][1:] for name in dataset.schema.target})


def costs(ranker: Ranker) -> dict[str, Any]:
    """FLOPs per candidate, before and after, and what a request hands over."""
    report = ranker.report
    assert report is not None
    before, plain, after = (
        figure.flops.at(CANDIDATES) / CANDIDATES for figure in (report.before, report.unshared, report.after)
    )
    return {
        "flops_before": before,
        "flops_without_sharing": plain,
        "flops_after": after,
        "flops_saved": 1 - after / before if before else 0.0,
        "state_bytes": report.state_bytes,
        "policy": report.policy,
        "unchanged": report.unchanged,
    }


def identity(verification: Verification) -> dict[str, Any]:
    """How well the scores agree, on the worst of the requests."""
    agreement = verification.agreement
    return {
        "identical": verification.identical,
        "float64_error": agreement.error64,
        "float32_ratio": agreement.ratio,
        "top10": agreement.order.top10,
        "top100": agreement.order.top100,
        "swapped_pairs": agreement.order.swapped_pairs,
    }


def speed(model: nn.Module, ranker: Ranker, request: Request, seconds: float) -> dict[str, Any]:
    """Milliseconds per request in eager torch: the model on tiled rows, and the ranker."""
    rows = tile(ranker.interface.roles, request)
    features: dict[str, Tensor] = {name.removeprefix(PREFIX): ids for name, ids in rows.items()}
    with torch.no_grad():
        medians = interleaved(
            {"before": lambda: model(features), "after": lambda: ranker(request.context, request.target)}, seconds
        )
    before, after = medians["before"], medians["after"]
    return {"ms_before": round(before, 3), "ms_after": round(after, 3), "speedup": round(before / after, 3)}


def interleaved(calls: Mapping[str, Callable[[], object]], seconds: float, least: int = 7) -> dict[str, float]:
    """The median time of each call in milliseconds: one of each per round, for so long, but no fewer than `least`."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in (*calls.values(), *calls.values()):
        call()
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least or time.perf_counter() < end:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begin) * 1e3)
        rounds += 1
    return {name: statistics.median(found) for name, found in times.items()}
