"""Does the estimate of time know what is fast? Every plan of every model of the corpus, estimated and measured.

    python bench/prediction.py [--candidates 100 500] [--backends eager inductor] [--threads 1] [--only DIN zoo/]

For each model, number of candidates and backend, in a process of its own: the different programs that the policies lead
to, best estimate first, and the unchanged one; their estimated times, and medians of interleaved calls. Writes
bench/results/prediction.json. Two questions are answered of it in docs/benchmarks.md: how well the estimated speedups
over the unchanged program rank with the measured ones (Spearman's correlation), and how often the program that is
picked takes at most 5% longer than the best of them. The fastest of several is also the luckiest: the best of those
that were not picked is built anew, as is the one that was, and what counts is how these two compare then. The picked
one is measured twice from the start, as two rankers: what lies between them is the noise of the measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from corpus_checks import Subject
from corpus_models import corpus
from running import Clock, Run, heap_of
from serving import flat_inputs, ranker_session

from rankopt.backends import PROFILES
from rankopt.envelope import Piece
from rankopt.errors import CaptureError
from rankopt.pipeline import build, capture_with_roles
from rankopt.plan import Plan, alternatives
from rankopt.ranker import Ranker
from rankopt.requests import Request

MOST = 6
"""Programs that are measured of one model; the unchanged one is among them."""
EXAMPLES = 100
AGAIN = "the one that is picked, again"


def measure(key: str, candidates: int, backend: str, clock: Clock) -> dict[str, Any]:
    """The programs of one model: estimated and measured milliseconds."""
    entry = next(entry for entry in corpus() if entry.key == key)
    model = entry.model()
    try:
        captured, roles = capture_with_roles(model, list(entry.context), None, entry.rows(EXAMPLES))
    except CaptureError:
        return {"sentence": "refused", "plans": {}}
    subject = Subject(entry, model, captured, roles)
    profile = replace(PROFILES[backend], threads=torch.get_num_threads())
    plans = distinct(alternatives(captured, roles, candidates, profile=profile))
    picked, by_name = plans[0], {plan.policy.name: plan for plan in plans}
    request, _ = subject.request(candidates, seed=7)

    def prepared(plan: Plan) -> Any:
        return BACKENDS[backend](build(captured, roles, [Piece(candidates, candidates, plan)]), request)

    with torch.no_grad():
        calls = {name: prepared(plan) for name, plan in by_name.items()} | {AGAIN: prepared(picked)}
        timings = heap_of(calls, max(clock.share(2), 1.0))
        measured = {name: timings[name].median for name in by_name}
        rival = min((name for name in by_name if by_name[name] is not picked), key=measured.__getitem__, default=None)
        duel = {"picked": prepared(picked), "rival": prepared(by_name[rival] if rival else picked)}
        again = heap_of(duel, max(clock.left, 1.0))
    loss = max(again["picked"].median / again["rival"].median, 1.0)
    return {
        "model": key,
        "candidates": candidates,
        "backend": backend,
        "picked": picked.policy.name,
        "rival": rival,
        "loss": loss,
        "again": timings[AGAIN].median,
        "unchanged": next(plan.policy.name for plan in plans if plan.policy.unchanged),
        "plans": {name: {"estimated": by_name[name].time / 1e6, "measured": measured[name]} for name in by_name},
        "sentence": f"{len(plans)} programs, the one picked takes {loss:.2f} times as long as the best",
    }


def distinct(plans: Sequence[Plan]) -> list[Plan]:
    """The best of them, each program once, and the unchanged one."""
    found: dict[tuple[int, float], Plan] = {}
    for plan in plans:
        found.setdefault((len(plan.exprs), round(plan.time)), plan)
    kept = list(found.values())[:MOST]
    unchanged = next(plan for plan in plans if plan.policy.unchanged)
    return kept if unchanged in kept else [*kept[: MOST - 1], unchanged]


def eager(ranker: Ranker, request: Request) -> Any:
    """A call of the ranker."""
    return lambda: ranker(request.context, request.target)


def inductor(ranker: Ranker, request: Request) -> Any:
    """A compiled call of the ranker."""
    compiled = torch.compile(ranker, dynamic=True)
    return lambda: compiled(request.context, request.target)


def onnxruntime(ranker: Ranker, request: Request) -> Any:
    """A call of a session that runs it."""
    session = ranker_session(ranker, request, torch.get_num_threads())
    flat = flat_inputs(ranker, request)
    return lambda: session(flat)


BACKENDS = {"eager": eager, "inductor": inductor, "onnxruntime": onnxruntime}
"""All of them; torch.compile takes minutes for each model."""


def main(arguments: Sequence[str] | None = None) -> None:
    def add(parser: Any) -> None:
        parser.add_argument("--candidates", nargs="*", type=int, default=[100, 500])
        parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=["eager", "onnxruntime"])

    run = Run.of("prediction", __doc__, arguments, add)
    keys = [entry.key for entry in corpus()]
    subjects = {
        f"{key}, {candidates} candidates, {backend}, {threads} threads": (
            threads,
            partial(measure, key, candidates, backend),
        )
        for threads in run.options.threads[-1:]
        for candidates in run.options.candidates
        for backend in run.options.backends
        for key in (keys[:2] if run.options.quick else keys)
    }
    run.measure(subjects)


if __name__ == "__main__":
    main()
