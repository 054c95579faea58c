"""What is asked of every model of the corpus: is it captured, is it identical, what does it save?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from corpus_models import Entry
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from rankopt.agreement import Agreement, compare
from rankopt.capture import CapturedModel
from rankopt.diagnosis import (
    DATA_DEPENDENT_BRANCH,
    DATA_DEPENDENT_SIZE,
    RANDOM,
    ROWS_AS_INT,
    STATE_CHANGED,
    TRAINING,
    VALUE_READ,
)
from rankopt.errors import CaptureError
from rankopt.exporting import tracing_conditions
from rankopt.float64 import run_float64, widened
from rankopt.pipeline import optimize
from rankopt.ranker import Ranker
from rankopt.requests import Request, split_rows, tile
from rankopt.selectors import InputRole
from rankopt.verify import placeholders

REASONS = (
    DATA_DEPENDENT_BRANCH,
    VALUE_READ,
    DATA_DEPENDENT_SIZE,
    STATE_CHANGED,
    ROWS_AS_INT,
    TRAINING,
    RANDOM,
)
"""Why a model may be refused; any other refusal is a failure of the compiler."""

EXAMPLES = 100
CANDIDATES = 512
"""The number of candidates for which FLOPs are counted."""
CHECKED = (2, 300)
"""Numbers of candidates at which scores are compared. Not one: some models squeeze their only row away."""


class Outcome(Enum):
    """What became of a model."""

    CAPTURED = "captured"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Subject:
    """A captured model of the corpus and its original."""

    entry: Entry
    model: nn.Module
    captured: CapturedModel
    roles: tuple[InputRole, ...]

    def request(self, candidates: int, seed: int) -> tuple[Request, dict[str, Tensor]]:
        """A random request, and the rows that the original reads for it: in tensors of their own, as they arrive.

        With a view, torch.compile asks at each call where in its memory it begins.
        """
        torch.manual_seed(seed)
        rows = self.captured.flatten_call((), self.entry.rows(candidates))
        request = split_rows(self.roles, rows)
        context, target = ({name: x.clone() for name, x in part.items()} for part in (request.context, request.target))
        request = Request(context, target)
        return request, tile(self.roles, request)

    def original(self, rows: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors that the original returns for these rows."""
        return call(self.model, self.captured, rows)


def call(model: nn.Module, captured: CapturedModel, rows: Mapping[str, Tensor]) -> list[Tensor]:
    """The tensors that a model returns for rows by input name."""
    args, kwargs = captured.unflatten_call(rows)
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]


def check(entry: Entry) -> tuple[dict[str, Any], Subject | None]:
    """The facts about one model that take no clock, as they are written down; and the model, if it was captured."""
    try:
        model = entry.model()
        torch.manual_seed(1)
        rows = entry.rows(EXAMPLES)
        start = time.perf_counter()
        ranker = optimize(model, list(entry.context), example_inputs=rows, candidates=CANDIDATES)
        seconds = time.perf_counter() - start
        assert ranker.origin is not None  # it was just made
        captured, plan = ranker.origin
        subject = Subject(entry, model, captured, ranker.interface.roles)
        agreement = agree(subject, ranker)
        request, tiled = subject.request(CANDIDATES, seed=3)
        return {
            "outcome": Outcome.CAPTURED.value,
            "optimize_s": round(seconds, 2),
            "identical": agreement.identical(),
            "float64_error": agreement.error64,
            "float32_ratio": agreement.ratio,
            "differences": agreement.reasons(),
            "plan": plan.policy.name,
            "mflop": {
                "before": _mflop(model, lambda: subject.original(tiled)),
                "after": _mflop(model, lambda: ranker(request.context, request.target)),
            },
        }, subject
    except CaptureError as refused:
        return _refusal(refused), None
    except Exception as error:  # whatever goes wrong is a result of its own, and the next model is tried
        return {"outcome": Outcome.FAILED.value, "reason": f"{type(error).__name__}: {_first_line(error)}"}, None


def agree(subject: Subject, ranker: Ranker, candidates: Sequence[int] = CHECKED) -> Agreement:
    """How well a ranker agrees with the model itself, not only with the graph that was captured of it."""
    agreements = []
    for seed, count in enumerate(candidates):
        request, rows = subject.request(count, seed)
        with torch.no_grad():
            rewritten = ranker.outputs(ranker.context_stage(request.context), request.target)
        rewritten64 = run_float64(ranker.stages.whole, ranker.arguments(request))
        agreements.append(compare(_truth(subject, rows), subject.original(rows), rewritten, rewritten64))
    return Agreement.over(agreements)


def _truth(subject: Subject, rows: Mapping[str, Tensor]) -> list[Tensor]:
    """The scores of the original in float64. Where it does not run in float64 (it names float32 itself), those of the
    captured graph, which must then be near to the original's own. One that names float32 and runs all the same rounds
    there: the mean of deepctr-torch's histories is 1e-10 off for that reason.
    """
    wide = {name: value.to(widened(value.dtype)) for name, value in rows.items()}
    try:
        return call(copy.deepcopy(subject.model).double(), subject.captured, wide)
    except RuntimeError:
        truth = run_float64(subject.captured.graph_module, placeholders(subject.captured, rows))
        for expected, found in zip(truth, subject.original(rows), strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
        return truth


def _mflop(model: nn.Module, work: Callable[[], Any]) -> float:
    """Millions of floating-point operations in the matrix products and convolutions of a call, by torch's counter."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    model.requires_grad_(False)  # the counter's hooks want a gradient function of views of what has gradients
    # It does not see into fused attention: the layers are run as they are written.
    with tracing_conditions(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    for weight in trained:
        weight.requires_grad_(True)
    return counter.get_total_flops() / 1e6


def _refusal(error: CaptureError) -> dict[str, Any]:
    """A refusal by its documented reason and the line of the library; a failure where the reason is not documented."""
    text = str(error)
    reason = next((cause.sentence for cause in REASONS if text.startswith(cause.sentence)), None)
    where = next((line.split("at: ", 1)[1] for line in text.splitlines() if line.strip().startswith("at: ")), "")
    return {
        "outcome": (Outcome.FAILED if reason is None else Outcome.REFUSED).value,
        "reason": reason or _first_line(error),
        "line": where.rpartition("site-packages/")[2],
    }


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
