"""Numbers and findings in words: units, labels, and the sentences of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rankopt.cost import Flops
from rankopt.labels import Rank

_PREFIXES = ("", "k", "M", "G", "T", "P")


def quantity(number: float, unit: str = "") -> str:
    """Three digits and a prefix: 287.2 M, 82.3 k, 64."""
    scaled, prefix = _scaled(number)
    return f"{scaled} {prefix}{unit}".rstrip()


def flop(number: float) -> str:
    """A number of FLOPs with its unit: 287.2 MFLOP."""
    return quantity(number, "FLOP")


def size(number: int) -> str:
    """A size with its unit: 132 kB."""
    return quantity(number, "B")


def duration(nanoseconds: float) -> str:
    """An estimated time: ~150 us, ~3.2 ms."""
    microseconds = nanoseconds / 1e3
    return f"~{microseconds:,.0f} us" if microseconds < 1e4 else f"~{microseconds / 1e3:,.1f} ms"


def file_name(path: str) -> str:
    """The last part of a path, of either kind."""
    return re.split(r"[\\/]", path)[-1]


def op_name(op: str) -> str:
    """The short name of an operator: `linear` for `aten.linear.default`."""
    parts = op.split(".")
    return parts[1] if len(parts) == 3 else op


def label(rank: Rank, shared: float) -> str:
    """Rank in words, with the fraction that is rank-2 where the ranks are mixed."""
    return f"{rank.value} ({shared:.0%} rank-2)" if rank is Rank.MIXED else rank.value


def change(before: float, after: float) -> str:
    """The change in percent: -71%."""
    percent = round(100 * (after - before) / before) if before else 0
    return f"{percent:+d}%" if percent else "0%" if before else ""


def sentence(before: Flops, after: Flops, candidates: int, state_bytes: int, unchanged: str) -> str:
    """The opening of a report.

    It speaks of matrix products, or of all work where most of it is elementwise.
    """
    note = ""
    if mostly_elementwise(before, candidates):
        before, after, note = joined(before), joined(after), ", elementwise work included"
    old, new = before.at(candidates), after.at(candidates)
    where = f"per request at {candidates:,} candidates"
    if unchanged:
        return f"unchanged: {flop(old)} {where}{note}; {unchanged}."
    saved = change(old, new)
    found = f"no FLOPs saved: {flop(new)} {where}{note}: "
    if saved not in ("", "0%"):
        found = f"{arrow(old, new)} {where} ({saved}{note}): "
    return f"{found}{flop(after.once)} once per request, {flop(after.each)} per candidate; state {size(state_bytes)}."


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are: `a, b, c and 2 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def pays(break_even: int | None) -> str:
    """From how many candidates on something is estimated to be faster."""
    return "never pays, by estimate" if break_even is None else f"pays from {break_even:,} candidates on"


def faster_from(break_even: int | None, plans: int, candidates: int) -> str:
    """From how many candidates on a ranker is faster than the model, and what to do for fewer; empty for any number."""
    if break_even is None or break_even <= 1:
        return ""
    advice = "" if plans > 1 else f"; for fewer, candidates=(1, {max(candidates, break_even)}) keeps another plan"
    return f"Faster than the model from {break_even:,} candidates on, by estimate{advice}."


def mostly_elementwise(flops: Flops, candidates: int) -> bool:
    """Whether matrix products are the smaller part of the work, so that they alone would not describe it."""
    return flops.elementwise_at(candidates) > flops.at(candidates)


def joined(flops: Flops) -> Flops:
    """All work as one number once, and one per candidate."""
    return Flops(flops.once + flops.elementwise_once, flops.each + flops.elementwise_each)


def agreement(
    identical: bool,
    error64: float | None,
    dtype: str,
    ratio: float | None,
    swapped_pairs: int,
    candidates: Sequence[int],
) -> str:
    """The result of a verification: identical or not, both errors, the order, numbers of candidates."""
    found: list[str] = []
    if error64 is not None:
        found.append(f"float64 {error64:.1e}")
    if dtype != "float64":
        found.append(
            f"{dtype} {_factor(ratio)}x of the original's own error"
            if ratio is not None
            else f"{dtype} off, where the original is exact"
        )
    found.append(f"{swapped_pairs:,} pairs swapped" if swapped_pairs else "same order")
    counts = ", ".join(f"{count:,}" for count in candidates)
    return f"{'identical' if identical else 'NOT identical'}: {', '.join(found)} (at {counts} candidates)"


def rounding(
    state_dtype: str, error: float, absolute_error: float, top100: float, moved100: int, candidates: Sequence[int]
) -> str:
    """What the rounding of a state does to the scores: the error, the order, numbers of candidates."""
    counts = ", ".join(f"{count:,}" for count in candidates)
    order = "the best 100 in the same order"
    if moved100:
        order = f"{moved100} of the best 100 places change hands, {top100:.0%} of their candidates stay"
    return (
        f"NOT exact, state in {state_dtype}: scores off by up to {absolute_error:.1e}, {error:.1e} of the largest, "
        f"{order} (at {counts} candidates)"
    )


def _factor(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 0.1 else f"{ratio:.1g}"


def _scaled(number: float, power: int | None = None) -> tuple[str, str]:
    if power is None:
        power, rest = 0, abs(number)
        while rest >= 999.5 and power < len(_PREFIXES) - 1:
            power, rest = power + 1, rest / 1000
    scaled = number / 1000**power
    is_whole = abs(scaled) >= 999.5 or (power == 0 and float(scaled).is_integer())
    return f"{scaled:,.0f}" if is_whole else f"{scaled:.1f}", _PREFIXES[power]


def arrow(old: float, new: float) -> str:
    """Both FLOPs in the unit of the larger number, if that leaves the smaller one readable."""
    large = max(old, new)
    power = _PREFIXES.index(_scaled(large)[1])
    if power and min(old, new) / 1000**power < 0.1:
        return f"{flop(old)} -> {flop(new)}"
    prefix = _PREFIXES[power]
    return f"{_scaled(old, power)[0]} -> {_scaled(new, power)[0]} {prefix}FLOP"
