"""How much faster are the models of the corpus? Original on tiled rows against the ranker, interleaved.

A ranker is optimised for each number of candidates at which it is measured, and for its backend. Tiling the rows is
not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from corpus_checks import Subject
from harness import interleaved
from serving import RowsModel, flat_inputs, onnx_session, ranker_session, with_rows
from torch import Tensor
from torch.utils import _pytree as pytree

from rankopt.backends import PROFILES
from rankopt.pipeline import build
from rankopt.plan import alternatives
from rankopt.ranker import Ranker
from rankopt.requests import Request

CANDIDATES = (1, 10, 100, 500, 2000)
CLOSE = 1e-3
"""A backend that is further from the original, relative to the largest score, computes something else."""

Call = Callable[[], Any]
Session = Callable[[Mapping[str, Tensor]], Any]


@dataclass(slots=True)
class Stopwatch:
    """Measures one model; what was exported for one number of candidates is used for the next where it fits."""

    subject: Subject
    threads: int
    seconds: float
    _sessions: dict[str, Session] = field(default_factory=dict)

    def measure(self, candidates: int, backends: Collection[str]) -> dict[str, Any]:
        """By backend: times, and how many times faster the ranker is by their medians; or why there is no figure."""
        request, rows = self.subject.request(candidates, seed=7)
        prepare = {"eager": self._eager, "onnxruntime": self._onnxruntime, "inductor": self._inductor}
        found: dict[str, Any] = {}
        for name in backends:
            try:
                ranker = self._ranker(name, candidates)
                found[name] = self._compare(*prepare[name](ranker, request, rows))
            except Exception as error:  # a backend that cannot run the original is no fault of the ranker's
                found[name] = {"none": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"}
            time.sleep(0.3)  # the idle threads of one backend would spin against the next one's
        return found

    def _ranker(self, backend: str, candidates: int) -> Ranker:
        profile = replace(PROFILES[backend], threads=self.threads)
        plans = alternatives(self.subject.captured, self.subject.roles, candidates, profile=profile)
        return build(self.subject.captured, self.subject.roles, plans[0])

    def _compare(self, original: Call, rewritten: Call) -> dict[str, Any]:
        with torch.no_grad():
            for expected, scores in zip(_scores(original()), _scores(rewritten()), strict=True):
                error = float(np.abs(expected - scores).max(initial=0) / np.abs(expected).max(initial=1e-30))
                if not error <= CLOSE:
                    raise ArithmeticError(f"scores differ by {error:.1e} of the largest")
            times = interleaved({"original": original, "rankopt": rewritten}, rounds=100, seconds=self.seconds)
        return {"milliseconds": times, "ratio": times["original"].median / times["rankopt"].median}

    def _eager(self, ranker: Ranker, request: Request, rows: Mapping[str, Tensor]) -> tuple[Call, Call]:
        args, kwargs = self.subject.captured.unflatten_call(rows)
        return lambda: self.subject.model(*args, **kwargs), lambda: ranker(request.context, request.target)

    def _inductor(self, ranker: Ranker, request: Request, rows: Mapping[str, Tensor]) -> tuple[Call, Call]:
        torch._dynamo.reset()  # it keeps eight versions of a function, and models share some
        args, kwargs = self.subject.captured.unflatten_call(rows)
        original = torch.compile(self.subject.model, dynamic=True)
        rewritten = torch.compile(ranker, dynamic=True)
        return lambda: original(*args, **kwargs), lambda: rewritten(request.context, request.target)

    def _onnxruntime(self, ranker: Ranker, request: Request, rows: Mapping[str, Tensor]) -> tuple[Call, Call]:
        flat = flat_inputs(ranker, request)
        if "original" not in self._sessions:
            examples = self.subject.captured.examples
            model = RowsModel(self.subject.model, self.subject.captured.call)
            self._sessions["original"] = onnx_session(model, examples, with_rows(examples), self.threads)
        code = ranker.stages.whole.code
        if code not in self._sessions:
            self._sessions[code] = ranker_session(ranker, request, self.threads)
        original, rewritten = self._sessions["original"], self._sessions[code]
        return lambda: original(rows), lambda: rewritten(flat)


def _scores(result: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(leaf) for leaf in pytree.tree_leaves(result)]
