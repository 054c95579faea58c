"""The comparison that every file has to pass before it is put in its place.

What runs the file may do as it likes with the graph: reorder, fuse, approximate. So its scores are judged like those of
a rewriting (`rankopt.agreement`): at most twice as far from the float64 truth as the original's own, at several
numbers of candidates. Where the ranker still knows its original, that is the reference; a ranker that was loaded is its
own: it was verified when it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rankopt.agreement import Agreement, compare
from rankopt.calls import example_call
from rankopt.capture import CapturedModel
from rankopt.errors import InputError, VerificationError
from rankopt.float64 import run_float64
from rankopt.ranker import Ranker
from rankopt.requests import Request, draw_request, tile
from rankopt.verify import placeholders

CANDIDATES = (1, 2, 37, 1000)
"""Numbers of candidates at which a file is compared."""

Scorer = Callable[[Any], Sequence[Tensor]]
"""What a file gives for a request, or for the requests of one call."""


class Call(Protocol):
    """A request, or the requests of one call."""

    @property
    def candidates(self) -> int:
        """Their number."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A call and its scores: in float64, as the original serves them, and by the ranker in float64."""

    request: Call
    truth: list[Tensor]
    original: list[Tensor]
    rewritten64: list[Tensor] | None
    state_dtype: torch.dtype | None = None
    """What the ranker rounds its state to, if it does."""

    def agreement(self, scores: Sequence[Tensor]) -> Agreement:
        """How well the scores of a file agree with it."""
        return compare(self.truth, self.original, scores, self.rewritten64, self.state_dtype)


def references(ranker: Ranker, requests: Sequence[Request], original: CapturedModel | None = None) -> list[Reference]:
    """The truth for each request. `original`: for a ranker that was loaded, and does not know it."""
    if original is None and ranker.origin is not None:
        original, _ = ranker.origin
    return [_reference(ranker, request, original) for request in requests]


def draw_requests(ranker: Ranker, examples: Mapping[str, Tensor], seed: int = 0) -> list[Request]:
    """Random requests in the ranges of example rows, one per number of candidates."""
    generator = torch.Generator().manual_seed(seed)
    return [draw_request(ranker.interface.roles, examples, n, generator) for n in CANDIDATES]


def requests_for(ranker: Ranker, example_inputs: Any) -> list[Request]:
    """Random requests like the example rows; by default in the ranges that the ranker knows of its inputs."""
    return draw_requests(ranker, examples_for(ranker, example_inputs))


def examples_for(ranker: Ranker, example_inputs: Any) -> Mapping[str, Tensor]:
    """Rows that show the ranges to draw requests from."""
    examples = ranker.examples
    if example_inputs is not None:
        args, kwargs = example_call(example_inputs)
        examples = ranker.interface.call.flatten(args, kwargs)
    if not examples:
        raise InputError(
            "the ranker does not know the range of its inputs, so what is exported could not be compared.\n"
            "  expected: example rows\n  found: a ranker saved by a version of rankopt that did not keep ranges\n"
            "  fix: export(..., example_inputs=rows), or --example rows.pt"
        )
    return examples


def check(runtime: str, scorer: Scorer, found: Sequence[Reference], outputs: Sequence[str]) -> Agreement:
    """How well a file agrees with the references, joined. Raises VerificationError where it does not.

    The message says which output is off, by how much, and at how many candidates.
    """
    agreements = [_agreement(runtime, scorer, reference) for reference in found]
    joined = Agreement.over(agreements)
    if joined.identical():
        return joined
    worst = max(range(len(found)), key=lambda i: (not agreements[i].identical(), agreements[i].ratio))
    agreement, reference = agreements[worst], found[worst]
    which = [name for name, output in zip(outputs, agreement.outputs, strict=True) if output.ratio > 1]
    raise VerificationError(
        f"{runtime} does not give the scores of the ranker, so nothing was written.\n"
        f"  output: {', '.join(which or outputs)}, at {reference.request.candidates:,} candidates\n"
        f"  found: {'; '.join(agreement.reasons() or joined.reasons())}\n"
        "  fix: export another format, or switch passes off one at a time (--no-pass NAME) to find what it gets wrong"
    )


def _agreement(runtime: str, scorer: Scorer, reference: Reference) -> Agreement:
    candidates = reference.request.candidates
    try:
        scores = [score.detach().cpu() for score in scorer(reference.request)]
    except Exception as error:  # runtimes raise whatever their layers raise
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise VerificationError(
            f"{runtime} cannot run what was exported at {candidates:,} candidates, so nothing was written.\n"
            f"  found: {first[:300]}\n  expected: any number of candidates\n"
            "  fix: export another format"
        ) from error
    for score, expected in zip(scores, reference.original, strict=True):
        if score.shape != expected.shape or score.dtype != expected.dtype:
            raise VerificationError(
                f"{runtime} returns a tensor of another kind at {candidates:,} candidates, so nothing was written.\n"
                f"  expected: {list(expected.shape)} {expected.dtype}\n  found: {list(score.shape)} {score.dtype}\n"
                "  fix: export another format"
            )
    return reference.agreement(scores)


def _reference(ranker: Ranker, request: Request, captured: CapturedModel | None) -> Reference:
    wide = run_float64(ranker.stages.whole, ranker.arguments(request))
    if captured is None:
        with torch.no_grad():
            scores = ranker.outputs(ranker.context_stage(request.context), request.target)
        return Reference(request, _on_cpu(wide), _on_cpu(scores), None, ranker.state_dtype)
    rows = tile(ranker.interface.roles, request)
    truth = run_float64(captured.graph_module, placeholders(captured, rows))
    return Reference(request, _on_cpu(truth), _on_cpu(captured.run(rows)), _on_cpu(wide), ranker.state_dtype)


def _on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().cpu() for tensor in tensors]
