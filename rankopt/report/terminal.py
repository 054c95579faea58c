"""A report as text: the sentence, then tables. Plain ASCII, so that it reads well in a pipe too."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankopt.labels import Rank
from rankopt.report import words
from rankopt.report.changes import Changes, ModuleChange
from rankopt.report.tree import Figure, NodeFacts, RefusalFacts, Report

_UNDERLINED = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)

_STYLES = {Rank.RANK2: "green", Rank.MIXED: "yellow", Rank.OPAQUE: "red"}

WIDE = 110
"""Columns from which on there is room for everything."""

_MOST_STATE = 12
_MOST_DECLINED = 8


def render(report: Report, console: Console, *, nodes: bool = False) -> None:
    """Prints a report; `nodes` adds a table with one row per node of the model."""
    _paragraph(console, report.sentence, "bold")
    if report.verification is not None:
        _paragraph(console, str(report.verification), "" if report.verification.identical else "red")
    if report.rounding is not None:
        _paragraph(console, f"{report.rounding}.", "yellow")
    _section(console, f"FLOPs per request at {report.candidates:,} candidates", _figures(report))
    if len(report.ranges) > 1:
        _section(console, "Plans by the number of candidates", _ranges(report))
    if not report.unchanged:
        _section(console, "By pass", _families(report))
    if nodes:
        _section(console, "By node", _nodes(report, console.width))
        for line in _legend(report):
            _paragraph(console, line, "dim")
    if report.refusals:
        _section(console, "Not improved, and why", _refusals(report))
    if report.declined:
        title = f"Could be shared, but does not pay at {report.candidates:,} candidates"
        _section(console, title, _declined(report))
    if report.state:
        size = words.size(report.state_bytes)
        if report.rounding is not None:
            size += f" instead of {words.size(report.rounding.exact_bytes)}"
        _section(console, f"State: {size} per request{_saved(report)}", _state(report))
    _section(console, "Policies tried", _policies(report, console.width))
    if limit := words.faster_from(report.break_even, len(report.ranges), report.candidates):
        _paragraph(console, limit, "")
    for note in report.notes:
        _paragraph(console, f"Note: {note}.", "dim")


def render_labels(report: Report, console: Console) -> None:
    """Prints one line per node: its rank, the inputs that it depends on, and the user's line."""
    table = _table("node", "label", "inputs", "line")
    room = max(console.width - 33, 40)
    listed = [_short(", ".join(node.inputs), room // 3) for node in report.nodes]
    room -= max(map(len, listed), default=0)
    for node, inputs in zip(report.nodes, listed, strict=True):
        line = "" if node.line is None else f"{node.line}  {node.line.code}"
        _row(table, _short(node.name, 16), _label(node), inputs, _short(line, room))
    console.print(table)


def render_changes(changes: Changes, console: Console) -> None:
    """Prints what changed, by module: within one report, or between two."""
    two = len(changes.titles) > 1
    for name, title in zip(("old", "new") if two else ("ranker",), changes.titles, strict=True):
        _paragraph(console, f"{name}: {title}", "dim")
    _paragraph(console, changes.sentence, "bold")
    flops = ("old model", "old served", "new model", "new served") if two else ("model", "served")
    table = _table("module", *flops, "saved", "change", numbers=range(1, len(flops) + 3))
    for change in (*changes.modules, changes.total):
        _row(table, _short(change.name, max(console.width - 12 * len(flops) - 20, 16)), *_change(change))
    _section(console, f"FLOPs per request at {changes.candidates:,} candidates", table)


def _change(change: ModuleChange) -> Iterable[str]:
    numbers = (*(number for side in change.flops for number in side), change.saved)
    return (*map(_number, numbers), words.change(*change.ends))


def plain(report: Report, width: int = 80, *, nodes: bool = False) -> str:
    """The report as text without colours."""
    file = io.StringIO()
    render(report, Console(file=file, width=width, color_system=None, legacy_windows=False), nodes=nodes)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


# ----------------------------------------------------------------------------------------------------- tables


def _figures(report: Report) -> Table:
    table = _table("", "once", "per cand.", "per request", "elementwise", "est. time", numbers=range(1, 6))
    for name, figure in (
        ("before", report.before),
        ("rewritten, no sharing", report.unshared),
        ("rewritten" if not report.unchanged else "unchanged", report.after),
    ):
        _row(table, name, *_figure(figure, report.candidates))
    return table


def _figure(figure: Figure, candidates: int) -> Iterable[str]:
    flops = figure.flops
    numbers = (flops.once, flops.each, flops.at(candidates), flops.elementwise_at(candidates))
    return (*(words.quantity(number) for number in numbers), words.duration(figure.time))


def _ranges(report: Report) -> Table:
    table = _table("candidates", "plan", "est. time", "before")
    for served in report.ranges:
        numbers = f"{served.first:,}" if served.first == served.last else f"{served.first:,}-{served.last:,}"
        _row(table, numbers, served.policy, _ends(served.after), _ends(served.before))
    return table


def _ends(times: Sequence[float]) -> str:
    first, last = map(words.duration, times)
    return first if first == last else f"{first} .. {last.removeprefix('~')}"


def _families(report: Report) -> Table:
    headers = ("pass", "nodes", "before", "after", "change", "elementwise", "after")
    table = _table(*headers, numbers=range(1, 7))
    n = report.candidates
    for family in report.families:
        before, after = family.before.at(n), family.after.at(n)
        elementwise = (family.before.elementwise_at(n), family.after.elementwise_at(n))
        numbers = (*map(_number, (before, after)), words.change(before, after), *map(_number, elementwise))
        _row(table, family.name, str(family.nodes), *numbers)
    return table


def _nodes(report: Report, width: int) -> Table:
    rule = ("rule, or why not",) if width >= WIDE else ()
    table = _table("node", "label", "before", "once", "per cand.", "line", "", *rule, numbers=range(2, 5))
    of = words.joined if _mostly_elementwise(report) else lambda flops: flops
    for node in report.nodes:
        before, after = of(node.before), of(node.after)
        _row(
            table,
            _short(node.name, 16),
            _label(node),
            *map(_number, (before.each, after.once, after.each)),
            _short(str(node.line or ""), 18),
            _short(_elsewhere(node), 16),
            *([_short(node.refusal or node.rule, width - 86)] if rule else []),
        )
    return table


def _legend(report: Report) -> tuple[str, str]:
    what = "FLOPs, elementwise work included" if _mostly_elementwise(report) else "FLOPs of matrix products"
    return (
        f"{what}: per candidate before -> once and per candidate now.",
        "'in': the later node in which (the rest of) a node's pending work was done.",
    )


def _mostly_elementwise(report: Report) -> bool:
    return words.mostly_elementwise(report.before.flops, report.candidates)


def _elsewhere(node: NodeFacts) -> str:
    return f"in {', '.join(node.done_in)}" if node.done_in else ""


def _label(node: NodeFacts) -> Text:
    text = f"mixed {node.shared:.0%}" if node.rank is Rank.MIXED else node.rank.value
    return Text(text, style=_STYLES.get(node.rank, ""))


def _refusals(report: Report) -> Table:
    table = _table("why", "per cand.", "elementwise", "line", numbers=(1, 2))
    table.columns[0].no_wrap = False
    table.columns[0].overflow = "fold"
    with_products = {node.name for node in report.nodes if node.before.each or node.before.once}
    for refusal in report.refusals:
        numbers = (refusal.after.each, refusal.after.elementwise_each)
        _row(table, _why(refusal, with_products), *map(_number, numbers), _short(str(refusal.line or ""), 18))
    return table


def _why(refusal: RefusalFacts, with_products: set[str]) -> str:
    """The reason, and the nodes behind it that cost products."""
    behind = [name for name in refusal.nodes if name in with_products]
    if not behind:
        return refusal.sentence
    return f"{refusal.sentence}; behind it {words.listed(behind, 3)}"


def _declined(report: Report) -> Table:
    table = _table("what", "per request", "shared", "pays from", "line", numbers=(1, 2, 3))
    table.columns[0].no_wrap = False
    n = report.candidates
    for facts in report.declined[:_MOST_DECLINED]:
        pays = "never" if facts.break_even is None else f"{facts.break_even:,}"
        numbers = (words.quantity(flops.at(n)) for flops in (facts.now, facts.possible))
        _row(table, words.listed(facts.nodes, 3), *numbers, pays, _short(str(facts.line or ""), 18))
    if len(report.declined) > _MOST_DECLINED:
        rest = report.declined[_MOST_DECLINED:]
        now, possible = sum(f.now.at(n) for f in rest), sum(f.possible.at(n) for f in rest)
        _row(table, f"and {len(rest)} more", words.quantity(now), words.quantity(possible))
    return table


def _state(report: Report) -> Table:
    table = _table("tensor", "shape", "dtype", "size", numbers=(3,))
    largest = sorted(report.state, key=lambda tensor: -tensor.bytes)
    for tensor in largest[:_MOST_STATE]:
        shape = "x".join(str(size) for size in tensor.shape) or "scalar"
        _row(table, _short(tensor.name, 36), shape, tensor.dtype, words.size(tensor.bytes))
    if len(largest) > _MOST_STATE:
        rest = largest[_MOST_STATE:]
        _row(table, f"and {len(rest)} more", "", "", words.size(sum(tensor.bytes for tensor in rest)))
    return table


def _saved(report: Report) -> str:
    saved = report.saved_per_byte
    return "" if saved is None or saved <= 0 else f", {words.flop(saved)} saved per byte"


def _policies(report: Report, width: int) -> Table:
    table = _table("policy", "per request", "est. time", "", numbers=(1, 2))
    for policy in report.policies:
        mark = "chosen" if policy.chosen else "dropped" if policy.dropped else ""
        flops = policy.figure.flops.at(report.candidates)
        _row(table, _short(policy.name, width - 36), words.quantity(flops), words.duration(policy.figure.time), mark)
    return table


# ----------------------------------------------------------------------------------------------------- layout


def _table(*headers: str, numbers: Sequence[int] = ()) -> Table:
    table = Table(box=_UNDERLINED, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, header in enumerate(headers):
        justify: Literal["left", "right"] = "right" if i in numbers else "left"
        table.add_column(header, justify=justify, no_wrap=True, overflow="crop")
    return table


def _row(table: Table, *cells: str | Text) -> None:
    """Adds a row. Text is shown as it is: square brackets in a line of code are no markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _section(console: Console, title: str, table: Table) -> None:
    console.print()
    _paragraph(console, title, "bold cyan")
    console.print(table)


def _paragraph(console: Console, text: str, style: str) -> None:
    console.print(Text(text, style=style), highlight=False)


def _number(number: float) -> str:
    return words.quantity(number) if number else ""


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
