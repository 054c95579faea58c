import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankopt.agreement import Agreement, compare
from rankopt.errors import VerificationError
from rankopt.rank_order import kendall_tau, swapped_pairs, top_k_overlap

FEW_LEVELS = st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, math.inf, math.nan]), max_size=12)


def rounded(n: int = 500, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores in float64, and two roundings of them that float32 could give."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(n, dtype=torch.float64, generator=generator)
    noise = torch.rand(2, n, dtype=torch.float64, generator=generator) * 2 - 1
    original, rewritten = (truth + 1e-5 * noise).float()
    return truth, original, rewritten


def test_roundings_of_the_same_scores_are_identical() -> None:
    truth, original, rewritten = rounded()
    agreement = compare(truth, original, rewritten, truth + 1e-12)
    assert agreement.identical()
    assert agreement.reasons() == ()
    assert agreement.candidates == 500
    assert agreement.error64 == pytest.approx(1e-12 / truth.abs().max().item(), rel=1e-3)
    assert agreement.original_error == pytest.approx(1e-5 / truth.abs().max().item(), rel=0.1)
    assert 0.5 < agreement.ratio < 2
    assert (agreement.nan_mismatches, agreement.infinity_mismatches) == (0, 0)


def test_an_error_in_float64_is_a_reason() -> None:
    truth, original, rewritten = rounded()
    agreement = compare(truth, original, rewritten, truth + 1e-8)
    assert not agreement.identical()
    assert agreement.identical(tolerance64=1e-7)
    (reason,) = agreement.reasons()
    assert reason.startswith("in float64 the rewritten scores are off by")


def test_without_a_float64_run_nothing_is_said_about_it() -> None:
    agreement = compare(*rounded())
    assert agreement.error64 is None
    assert agreement.identical()


def test_more_than_twice_the_error_of_the_original_is_a_reason() -> None:
    truth, original, _ = rounded()
    worse = truth + (original.double() - truth) * 3
    agreement = compare(truth, original, worse.float())
    assert agreement.ratio == pytest.approx(3, rel=0.1)
    assert not agreement.identical()
    assert agreement.identical(factor=4)
    assert "3" in agreement.reasons()[0]
    assert "times further from the float64 truth" in agreement.reasons()[0]


@pytest.mark.parametrize(("ulps", "identical"), [(1, True), (3, True), (7, True), (20, False)])
def test_errors_of_a_few_ulps_are_equal_even_to_none(ulps: int, identical: bool) -> None:
    truth = torch.linspace(-1, 1, 101, dtype=torch.float64).float().double()
    rewritten = (truth + ulps * torch.finfo(torch.float32).eps * (truth == 1)).float()
    assert compare(truth, truth.float(), rewritten).identical() is identical


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_floor_follows_the_served_dtype(dtype: torch.dtype) -> None:
    truth = torch.linspace(-1, 1, 101, dtype=torch.float64).to(dtype).double()
    eps = torch.finfo(dtype).eps
    off = [(truth + ulps * eps * (truth == 1)).to(dtype) for ulps in (2, 40)]
    assert compare(truth, truth.to(dtype), off[0]).identical()
    assert not compare(truth, truth.to(dtype), off[1]).identical()


def test_nan_for_the_same_candidates_no_more_and_no_fewer() -> None:
    truth, original, rewritten = rounded()
    for scores in (truth, original, rewritten):
        scores[7] = math.nan
    assert compare(truth, original, rewritten, truth).identical()
    more = rewritten.clone()
    more[8] = math.nan
    fewer = rewritten.clone()
    fewer[7] = 0.0
    for wrong in (more, fewer):
        agreement = compare(truth, original, wrong, truth)
        assert agreement.nan_mismatches == 1
        assert agreement.reasons() == ("1 scores are NaN for one ranker and not for the other",)
    assert compare(truth, original, rewritten, more.double()).nan_mismatches == 1


def test_infinities() -> None:
    truth, original, rewritten = rounded()
    for scores in (truth, original, rewritten):
        scores[7] = -math.inf
    assert compare(truth, original, rewritten, truth).identical()
    for position, value in [(7, math.inf), (7, 0.0), (8, math.inf)]:
        wrong = rewritten.clone()
        wrong[position] = value
        assert compare(truth, original, wrong, truth).infinity_mismatches == 1
        wide = truth.clone()
        wide[position] = value
        assert compare(truth, original, rewritten, wide).infinity_mismatches == 1


def test_an_overflow_of_the_original_alone_is_no_fault_of_the_rewrite() -> None:
    truth = torch.tensor([1.0, 70000.0, 3.0], dtype=torch.float64)
    original = truth.half()
    assert original[1] == math.inf
    rewritten = original.clone()
    rewritten[1] = 65504
    assert compare(truth, original, rewritten).identical()
    assert not compare(truth, rewritten, original).identical()


@pytest.mark.parametrize("fill", [-1e9, -65504.0, torch.finfo(torch.float32).min])
def test_masked_candidates_do_not_hide_an_error(fill: float) -> None:
    truth, original, rewritten = rounded()
    wrong = rewritten + 1e-3
    for scores in (truth, original, rewritten, wrong):
        scores[::3] = fill
    assert compare(truth, original, rewritten, truth).identical()
    assert not compare(truth, original, wrong, truth).identical()
    assert not compare(truth, original, rewritten, wrong.double()).identical()
    assert compare(truth, original, wrong).original_error == pytest.approx(4e-6, rel=0.5)


@pytest.mark.parametrize("shape", [(0,), (1,), (0, 3), (1, 3), (1, 1), ()])
def test_no_and_one_candidate(shape: tuple[int, ...]) -> None:
    scores = torch.ones(shape)
    agreement = compare(scores.double(), scores, scores, scores.double())
    assert agreement.identical()
    assert agreement.candidates == (shape[0] if shape else 1)
    assert (agreement.order.top10, agreement.order.kendall_tau) == (1, 1)


def test_all_scores_zero() -> None:
    zeros = torch.zeros(5)
    assert compare(zeros.double(), zeros, zeros, zeros.double()).identical()
    assert not compare(zeros.double(), zeros, zeros + 1e-3, zeros.double()).identical()


def test_several_outputs_and_several_tasks() -> None:
    truth, original, rewritten = rounded()
    large = [1e3 * truth, 1e3 * original, 1e3 * rewritten]
    tasks = [torch.stack([scores, -scores], 1) for scores in (truth, original, rewritten + 1e-4)]
    lists = list(zip(large, tasks, strict=True))
    agreement = compare(*map(list, lists), [large[0], tasks[0]])
    assert agreement.outputs[0].ratio < 2 < agreement.outputs[1].ratio == agreement.ratio
    (reason, *_) = agreement.reasons()
    assert reason.startswith("output 1: the rewritten scores are")


def test_integer_outputs_are_compared_exactly() -> None:
    ids = torch.arange(5)
    assert compare(ids, ids, ids, ids).identical()
    assert not compare(ids, ids, ids.flip(0), ids).identical()


@pytest.mark.parametrize(
    "others",
    [
        ([torch.ones(3)], [torch.ones(3)] * 2),
        (torch.ones(3), torch.ones(3, 1)),
        (torch.ones(3), torch.ones(4)),
        (torch.ones(3), torch.ones(3).half()),
    ],
)
def test_scores_that_cannot_be_compared(others: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(VerificationError, match="cannot be compared"):
        compare(torch.ones(3, dtype=torch.float64), *others)


def test_a_rewritten_float64_run_of_another_shape_is_refused() -> None:
    truth, original, rewritten = rounded(3)
    with pytest.raises(VerificationError, match="cannot be compared"):
        compare(truth, original, rewritten, truth[:2])
    with pytest.raises(VerificationError, match="cannot be compared"):
        compare(truth, original, rewritten, [truth, truth])


def test_a_scrambled_order_shows() -> None:
    truth, original, rewritten = rounded()
    scrambled = rewritten[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    agreement = compare(truth, original, scrambled)
    assert agreement.order.top10 < 0.5
    assert agreement.order.top100 < 0.5
    assert abs(agreement.order.kendall_tau) < 0.2
    assert agreement.order.swapped_pairs > 10_000
    assert "pairs of candidates are swapped beyond rounding" in agreement.reasons()[-1]


def test_swaps_within_rounding_are_excused() -> None:
    truth = torch.arange(200, dtype=torch.float64) * 1e-7
    noise = torch.rand(2, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    original, rewritten = truth + 1e-6 * noise
    agreement = compare(truth, original, rewritten)
    assert agreement.order.kendall_tau < 1
    assert agreement.order.swapped_pairs == 0


def test_requests_are_joined_by_their_worst() -> None:
    lucky = compare(*rounded(1, seed=3))
    usual = compare(*rounded(500))
    joined = Agreement.over([lucky, usual])
    assert joined.candidates == 501
    assert joined.outputs[0].scale == usual.outputs[0].scale
    assert joined.original_error == usual.original_error
    assert joined.rewritten_error == usual.rewritten_error
    assert joined.order.kendall_tau == usual.order.kendall_tau
    assert Agreement.over([usual]) == usual
    with pytest.raises(ValueError, match="at least one"):
        Agreement.over([])


def test_a_score_near_zero_is_no_alarm_among_others() -> None:
    near_zero = torch.tensor([1e-6], dtype=torch.float64)
    alone = compare(near_zero, (near_zero + 1e-9).float(), (near_zero + 1e-5).float(), near_zero)
    assert not alone.identical()
    usual = compare(*rounded(500))
    assert Agreement.over([alone, usual]).identical()
    wrong = compare(near_zero, near_zero.float(), near_zero.float(), near_zero * (1 + 1e-8))
    assert not Agreement.over([wrong, usual]).identical()


@given(FEW_LEVELS, st.integers(1, 12))
def test_top_k_of_a_ranking_with_itself_is_complete(scores: list[float], k: int) -> None:
    x = np.array(scores)
    assert top_k_overlap(x, x, k) == 1
    assert top_k_overlap(x, 2 * x, k) == 1


def test_top_k_counts_ties_for_either_side() -> None:
    x, y = np.array([3.0, 2.0, 2.0, 1.0]), np.array([3.0, 1.9, 2.0, 1.0])
    assert top_k_overlap(x, y, 2) == 1
    assert top_k_overlap(y, x, 2) == 1
    assert top_k_overlap(x, -x, 2) == 0.5  # candidate 1 or 2 is tied with the second best
    assert top_k_overlap(np.array([2.0, 1.0]), np.array([math.nan, 1.0]), 1) == 0


@given(FEW_LEVELS.flatmap(lambda x: st.tuples(st.just(x), st.permutations(x))))
@settings(max_examples=300)
def test_kendall_tau_counts_every_pair(rankings: tuple[list[float], list[float]]) -> None:
    x, y = (np.where(np.isnan(r), -np.inf, r) for r in map(np.array, rankings))
    signs = [
        (int(a > b) - int(a < b), int(c > d) - int(c < d))
        for (a, c), (b, d) in itertools.combinations(zip(x, y, strict=True), 2)
    ]
    numerator = sum(p * q for p, q in signs)
    denominator = math.sqrt(sum(p != 0 for p, _ in signs) * sum(q != 0 for _, q in signs))
    expected = numerator / denominator if denominator else 1.0  # a permutation of a constant is the same constant
    assert kendall_tau(*map(np.array, rankings)) == pytest.approx(expected)


def test_kendall_tau_of_one_constant_ranking_is_zero() -> None:
    assert kendall_tau(np.array([1.0, 2.0, 3.0]), np.ones(3)) == 0


@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), max_size=14), st.sampled_from([0.0, 1.0, 2.5]))
@settings(max_examples=300)
def test_swapped_pairs_counts_every_pair(scores: list[tuple[int, int]], rounding: float) -> None:
    pairs = itertools.permutations(scores, 2)
    expected = sum(t > u + rounding and r < s for (t, r), (u, s) in pairs)
    truth, rewritten = np.array(scores, dtype=np.float64).reshape(-1, 2).T
    assert swapped_pairs(truth, rewritten, rounding) == expected


def test_5000_candidates_take_less_than_50_milliseconds() -> None:
    truth, original, rewritten = rounded(5000)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        compare(truth, original, rewritten, truth)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05
