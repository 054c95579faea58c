"""How well the scores of a rewritten ranker agree with those of the original.

Two sums of the same numbers in another order differ by rounding, so scores are judged by their distance to
the truth, the original evaluated in float64. The rewritten ranker in float64 must reach it almost exactly;
in the dtype that is served it must come about as close as the original does. Ranking users care about
order, so the order is compared as well: top-k overlap, Kendall's tau, and the pairs of candidates that
rounding does not excuse.

The largest error of a few scores is noise, as one score may be right by luck: measure a large request, or
join several with `Agreement.over`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rankopt.errors import VerificationError
from rankopt.rank_order import Flags, Floats, kendall_tau, moved_places, swapped_pairs, top_k_overlap

Scores = Tensor | Sequence[Tensor]

EQUAL_ULPS = 4
"""Errors below this many units in the last place of the largest score count as equal."""

ROUNDED_ULPS = 16
"""Errors below this many units in the last place of a rounded state, relative to the largest score, are rounding."""

MASKED = 1e4
"""Scores beyond this are taken for masked candidates (-65504, -1e9, finfo.min). Next to them any error would
look small: they do not set the scale of the others, and are compared by their own magnitude."""

ALLOWED_FACTOR = 2.0
"""How much further from the truth than the original a rewritten score may lie."""


@dataclass(frozen=True, slots=True)
class Distances:
    """The largest errors of one output against the truth, relative to its largest score, `scale`.

    `float64` is the error of the rewritten ranker run in float64, None if it was not run; `original` and
    `rewritten` are those of the served dtype; errors up to `floor` count as equal.
    """

    scale: float
    float64: float | None
    original: float
    rewritten: float
    floor: float

    @property
    def ratio(self) -> float:
        """How many times further from the truth the rewritten scores are; 1 if both are within the floor."""
        original, rewritten = self._floored()
        if rewritten == original:
            return 1.0
        return rewritten / original if original > 0 else math.inf

    @property
    def rounding(self) -> float:
        """The difference of two scores that rounding excuses: both errors, the second as far as allowed."""
        original, rewritten = self._floored()
        return original + min(rewritten, ALLOWED_FACTOR * original)

    def _floored(self) -> tuple[float, float]:
        return max(self.original, self.floor), max(self.rewritten, self.floor)


@dataclass(frozen=True, slots=True)
class Order:
    """How far two rankers agree on the order of the candidates; of several columns of scores, the worst.

    `top10` and `top100`: the share of the best k candidates (of all, where there are fewer) that both name;
    a tie at the border counts for either. `kendall_tau`: tau-b, 1 for the same order.

    `swapped_pairs`: how many pairs of candidates the rewritten ranker puts in the wrong order although
    their true scores differ by more than `Distances.rounding`. A ranker as accurate as the original has
    none. Columns add up.

    `moved100`: how many of the best 100 places another candidate holds than with the original.
    """

    top10: float = 1.0
    top100: float = 1.0
    kendall_tau: float = 1.0
    swapped_pairs: int = 0
    moved100: int = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What `compare` found for the scores of a request, or of several joined by `over`."""

    candidates: int
    outputs: tuple[Distances, ...]
    order: Order
    nan_mismatches: int
    """Scores that are NaN for one ranker only."""
    infinity_mismatches: int
    """Scores that became infinite, or that the truth has infinite too and that no longer are."""

    @property
    def error64(self) -> float | None:
        """The worst relative error of the rewritten ranker in float64; None if it was not run in float64."""
        known = [output.float64 for output in self.outputs if output.float64 is not None]
        return max(known) if known else None

    @property
    def original_error(self) -> float:
        """The worst relative error of the original in the served dtype."""
        return max((output.original for output in self.outputs), default=0.0)

    @property
    def rewritten_error(self) -> float:
        """The worst relative error of the rewritten ranker in the served dtype."""
        return max((output.rewritten for output in self.outputs), default=0.0)

    @property
    def absolute_error(self) -> float:
        """The largest error of a score of the rewritten ranker in the served dtype, in the units of the scores."""
        return max((output.rewritten * output.scale for output in self.outputs), default=0.0)

    @property
    def ratio(self) -> float:
        """The worst ratio of the two errors over the outputs: about 1 for a good rewrite."""
        return max((output.ratio for output in self.outputs), default=1.0)

    def identical(self, tolerance64: float = 1e-9, factor: float = ALLOWED_FACTOR) -> bool:
        """Whether both rankers give the same scores: see `reasons`."""
        return not self.reasons(tolerance64, factor)

    def reasons(self, tolerance64: float = 1e-9, factor: float = ALLOWED_FACTOR) -> tuple[str, ...]:
        """Why the rankers are not the same, in words; empty if they are.

        The order of the candidates is no reason of its own: what swaps them is the error of their scores.
        """
        found = []
        if self.nan_mismatches:
            found.append(f"{self.nan_mismatches:,} scores are NaN for one ranker and not for the other")
        if self.infinity_mismatches:
            found.append(f"{self.infinity_mismatches:,} scores are infinite for one ranker and not for the other")
        for number, output in enumerate(self.outputs):
            where = "" if len(self.outputs) == 1 else f"output {number}: "
            if output.float64 is not None and output.float64 > tolerance64:
                found.append(
                    f"{where}in float64 the rewritten scores are off by {output.float64:.1e} of the largest "
                    f"score (at most {tolerance64:.0e} allowed)"
                )
            if output.ratio > factor:
                found.append(
                    f"{where}the rewritten scores are {output.ratio:.3g} times further from the float64 "
                    f"truth than the original's: {output.rewritten:.1e} against {output.original:.1e} "
                    f"(at most {factor:g} times allowed)"
                )
        if found and self.order.swapped_pairs:
            found.append(f"{self.order.swapped_pairs:,} pairs of candidates are swapped beyond rounding")
        return tuple(found)

    @staticmethod
    def over(requests: Sequence["Agreement"]) -> "Agreement":
        """The agreement over several requests to the same rankers: the worst of each, counts added up."""
        if not requests:
            raise ValueError("no agreement to join: expected at least one")
        return Agreement(
            candidates=sum(request.candidates for request in requests),
            outputs=tuple(_worst(each) for each in zip(*(request.outputs for request in requests), strict=True)),
            order=_worst_order([request.order for request in requests]),
            nan_mismatches=sum(request.nan_mismatches for request in requests),
            infinity_mismatches=sum(request.infinity_mismatches for request in requests),
        )


def compare(
    truth64: Scores,
    original: Scores,
    rewritten: Scores,
    rewritten64: Scores | None = None,
    state_dtype: torch.dtype | None = None,
) -> Agreement:
    """Compare the scores of one request: [N] or [N, ...], or a list of such outputs.

    `truth64` is the original run in float64, `original` and `rewritten` are the scores in the dtype that is
    served, `rewritten64` the rewritten ranker run in float64; without it nothing is said about float64.
    `state_dtype`: what the state of the rewritten ranker is rounded to, if it is; errors that this explains count as
    equal.
    Order is that of dim 0 in every column. Raises VerificationError if the number of outputs, their shapes
    or the served dtypes differ.
    """
    truths, originals, rewrittens = _listed(truth64), _listed(original), _listed(rewritten)
    wides = [None] * len(truths) if rewritten64 is None else _listed(rewritten64)
    _require_same("number", len(truths), len(originals), len(rewrittens), len(wides))
    allowed = 0.0 if state_dtype is None else allowed_error(state_dtype)
    outputs = [_compare_output(*each, allowed) for each in zip(truths, originals, rewrittens, wides, strict=True)]
    return Agreement(
        candidates=max((output.candidates for output in outputs), default=0),
        outputs=tuple(distances for output in outputs for distances in output.outputs),
        order=_worst_order([output.order for output in outputs]),
        nan_mismatches=sum(output.nan_mismatches for output in outputs),
        infinity_mismatches=sum(output.infinity_mismatches for output in outputs),
    )


def allowed_error(state_dtype: torch.dtype) -> float:
    """The error, relative to the largest score, that rounding a state excuses."""
    return ROUNDED_ULPS * torch.finfo(state_dtype).eps


def _compare_output(
    truth64: Tensor, original: Tensor, rewritten: Tensor, rewritten64: Tensor | None, allowed: float
) -> Agreement:
    _require_same("dtype", original.dtype, rewritten.dtype)
    wide = truth64 if rewritten64 is None else rewritten64
    _require_same("shape", *(list(each.shape) for each in (truth64, original, rewritten, wide)))
    truth, before, after, after64 = (_columns(each) for each in (truth64, original, rewritten, wide))

    scale = _scale(truth)
    comparable = np.isfinite(before) & np.isfinite(after)
    distances = Distances(
        scale=scale,
        float64=None if rewritten64 is None else _distance(after64, truth, scale, np.isfinite(after64)),
        original=_distance(before, truth, scale, comparable),
        rewritten=_distance(after, truth, scale, comparable),
        floor=max(EQUAL_ULPS * torch.finfo(original.dtype).eps, allowed) if original.is_floating_point() else 0.0,
    )
    ordinary = np.where(np.abs(truth) <= scale, truth, np.nan)
    orders = [_order(*column, distances.rounding * scale) for column in zip(ordinary, before, after, strict=True)]
    overflowed = np.isinf(after) & (after != before)
    lost = np.isinf(before) & np.isinf(truth) & np.isfinite(after)
    differ64 = (np.isinf(truth) | np.isinf(after64)) & (truth != after64)
    return Agreement(
        candidates=truth.shape[1],
        outputs=(distances,),
        order=_worst_order(orders),
        nan_mismatches=_count(np.isnan(before) != np.isnan(after)) + _count(np.isnan(truth) != np.isnan(after64)),
        infinity_mismatches=_count(overflowed | lost) + _count(differ64),
    )


def _order(truth: Floats, original: Floats, rewritten: Floats, rounding: float) -> Order:
    return Order(
        top10=top_k_overlap(original, rewritten, 10),
        top100=top_k_overlap(original, rewritten, 100),
        kendall_tau=kendall_tau(original, rewritten),
        swapped_pairs=swapped_pairs(truth, rewritten, rounding),
        moved100=moved_places(original, rewritten, 100),
    )


def _columns(scores: Tensor) -> Floats:
    """[N, ...] -> [columns, N]; a single score is a column of one."""
    values = scores.detach().reshape(-1) if scores.dim() == 0 else scores.detach()
    columns = values.to("cpu", torch.float64).reshape(len(values), math.prod(values.shape[1:]))
    result: Floats = columns.T.numpy()
    return result


def _scale(truth: Floats) -> float:
    """The largest ordinary magnitude; masked scores set it only where there are no others."""
    magnitudes = np.abs(truth[np.isfinite(truth)])
    ordinary = magnitudes[(magnitudes > 0) & (magnitudes <= MASKED)]
    largest = ordinary.max() if len(ordinary) else magnitudes.max(initial=0.0)
    return max(float(largest), float(np.finfo(np.float64).tiny))


def _distance(values: Floats, truth: Floats, scale: float, where: Flags) -> float:
    """max |values - truth| / max(|truth|, scale) over the finite elements of a mask; 0 if it has none."""
    where = where & np.isfinite(truth)
    values, truth = values[where], truth[where]
    return float((np.abs(values - truth) / np.maximum(np.abs(truth), scale)).max(initial=0.0))


def _count(flags: Flags) -> int:
    return int(np.count_nonzero(flags))


def _worst(outputs: Sequence[Distances]) -> Distances:
    """The errors of one output over several requests.

    Those of the served dtype are measured on the scale of all requests: the only score of a small request may
    lie near zero, where its own scale would turn the rounding of the terms in it into a large error.
    """
    scale = max(output.scale for output in outputs)
    measured = [output.float64 for output in outputs if output.float64 is not None]
    return Distances(
        scale=scale,
        float64=max(measured) if measured else None,
        original=max(output.original * output.scale for output in outputs) / scale,
        rewritten=max(output.rewritten * output.scale for output in outputs) / scale,
        floor=max(output.floor for output in outputs),
    )


def _worst_order(orders: Sequence[Order]) -> Order:
    return Order(
        top10=min((order.top10 for order in orders), default=1.0),
        top100=min((order.top100 for order in orders), default=1.0),
        kendall_tau=min((order.kendall_tau for order in orders), default=1.0),
        swapped_pairs=sum(order.swapped_pairs for order in orders),
        moved100=max((order.moved100 for order in orders), default=0),
    )


def _listed(scores: Scores) -> list[Tensor]:
    return [scores] if isinstance(scores, Tensor) else list(scores)


def _require_same(what: str, original: object, *others: object) -> None:
    if all(other == original for other in others):
        return
    raise VerificationError(
        f"the rankers return scores of another {what}: they cannot be compared.\n"
        f"  original: {original}\n"
        f"  others: {', '.join(map(str, others))}\n"
        f"  fix: run every ranker on the same request; if they were, this is a bug of rankopt"
    )
