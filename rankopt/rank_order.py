"""Statistics of order between two rankings of the same candidates, fast enough for thousands of them.

All take score vectors [N] in float64 (higher is better) and handle ties, infinities, N = 0 and N = 1. NaN
ranks last.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.int64]


def top_k_overlap(original: Floats, rewritten: Floats, k: int) -> float:
    """The share of the rewritten ranker's best k (of all, if there are fewer) that are the original's too.

    Ties are broken in favour of agreement.
    """
    original, rewritten = _last_if_nan(original), _last_if_nan(rewritten)
    k = min(k, len(original))
    if k == 0:
        return 1.0
    border = np.partition(original, -k)[-k]
    chosen = np.lexsort((-original, -rewritten))[:k]
    return float(np.mean(original[chosen] >= border))


def moved_places(original: Floats, rewritten: Floats, k: int) -> int:
    """How many of the best k places another candidate holds in the rewritten ranking.

    Ties are broken in favour of agreement.
    """
    original, rewritten = _last_if_nan(original), _last_if_nan(rewritten)
    best = -np.sort(-original)[:k]
    chosen = np.lexsort((-original, -rewritten))[:k]
    return int(np.count_nonzero(original[chosen] != best))


def kendall_tau(x: Floats, y: Floats) -> float:
    """Kendall's tau-b of two score vectors [N], in O(N log N).

    tau-b = (concordant - discordant) / sqrt((pairs - tied in x) (pairs - tied in y))   (Kendall 1945)

    Where a vector is constant, tau-b is not defined: 1 if both are, else 0.
    """
    x_level, y_level = _levels(x), _levels(y)
    pairs = len(x) * (len(x) - 1) // 2
    tied_x, tied_y = _tied_pairs(x_level), _tied_pairs(y_level)
    if pairs in (tied_x, tied_y):
        return 1.0 if tied_x == tied_y else 0.0
    tied_both = _tied_pairs(x_level * len(y) + y_level)
    everyone = np.ones(len(x), dtype=np.bool_)
    discordant = _inversions(y_level[np.lexsort((y_level, x_level))], everyone, everyone)
    difference = pairs - tied_x - tied_y + tied_both - 2 * discordant
    return difference / math.sqrt((pairs - tied_x) * (pairs - tied_y))


def swapped_pairs(truth: Floats, rewritten: Floats, rounding: float) -> int:
    """The number of pairs (i, j) with truth[i] > truth[j] + rounding and rewritten[i] < rewritten[j].

    Each candidate stands in a line twice, as i where its true score is and as j where that plus rounding
    is: what is counted is then the inversions between the two kinds. Scores that are not finite are left
    out.
    """
    finite = np.isfinite(truth) & np.isfinite(rewritten)
    truth, level = truth[finite], _levels(np.negative(rewritten[finite]))
    as_i = np.repeat([True, False], len(truth))
    line = np.lexsort((as_i, -np.concatenate([truth, truth + rounding])))  # best first; equal is not greater
    return _inversions(np.tile(level, 2)[line], as_i[line], ~as_i[line])


def _inversions(level: Levels, before: Flags, after: Flags) -> int:
    """The number of p < q with level[p] > level[q], `before` at p and `after` at q; in O(N log max(level)).

    The levels of such a pair share their highest bits and then have 1 at p and 0 at q. From the highest bit
    down, the line is kept sorted, stably, by the bits that were seen.
    """
    found = 0
    for bit in reversed(range(int(level.max(initial=0)).bit_length())):
        prefix, one = level >> (bit + 1), (level >> bit) & 1 == 1
        ones_so_far = np.concatenate([[0], np.cumsum(one & before)])
        group_start = np.searchsorted(prefix, prefix)
        found += int((ones_so_far[:-1] - ones_so_far[group_start])[~one & after].sum())
        line = np.argsort(level >> bit, kind="stable")
        level, before, after = level[line], before[line], after[line]
    return found


def _levels(values: Floats) -> Levels:
    """The rank of every value, equal values alike, from 0."""
    return np.unique(_last_if_nan(values), return_inverse=True)[1].astype(np.int64)


def _last_if_nan(values: Floats) -> Floats:
    return np.where(np.isnan(values), -np.inf, values)


def _tied_pairs(level: Levels) -> int:
    counts = np.unique(level, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())
