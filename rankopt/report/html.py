"""A report as one HTML page that needs nothing else: no network, no scripts. The same facts as in the terminal.

Everything that the user named (nodes, inputs, modules, files, lines of code) is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from rankopt.cost import Flops
from rankopt.labels import Rank
from rankopt.report import words
from rankopt.report.changes import Changes
from rankopt.report.style import STYLE
from rankopt.report.tree import Line, NodeFacts, Report

Cells = Sequence[str]

_NUMBER = "n"
"""Class of a column of numbers."""


def page(report: Report, title: str) -> str:
    """The report as the text of an HTML file."""
    sections = [
        _summary(report),
        _lines(report),
        _refusals(report),
        _declined(report),
        _families(report),
        _plans(report),
        _state(report),
        _every_node(report),
    ]
    notes = "".join(f"<p class=dim>Note: {escape(note)}.</p>" for note in report.notes)
    return document(title, f"<h1>{escape(title)}</h1>\n" + "\n".join(filter(None, sections)) + notes)


def changes_page(changes: Changes) -> str:
    """What changed, by module, as the text of an HTML file."""
    title = " → ".join(changes.titles)
    flops = ("old model", "old served", "new model", "new served") if len(changes.titles) > 1 else ("model", "served")
    most = max(changes.total.ends, default=0.0)
    rows = [
        (
            f"<code>{escape(change.name)}</code>",
            _two_bars(change.ends, most),
            *(_quantity(number) for side in change.flops for number in side),
            _quantity(change.saved),
            words.change(*change.ends),
        )
        for change in (*changes.modules, changes.total)
    ]
    headers = ("module", "", *flops, "saved", "change")
    body = f"<h1>{escape(title)}</h1>\n<p class=lead>{escape(changes.sentence)}</p>\n"
    return document(title, body + table(headers, rows, numbers=range(2, len(headers))))


def document(title: str, body: str) -> str:
    """An HTML file."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


# ----------------------------------------------------------------------------------------------------- sections


def _summary(report: Report) -> str:
    found = [f"<p class=lead>{escape(report.sentence)}</p>"]
    if report.verification is not None:
        kind = "good" if report.verification.identical else "bad"
        found.append(f'<p class="{kind}">{escape(str(report.verification))}</p>')
    n = report.candidates
    figures = (("before", report.before), ("rewritten, no sharing", report.unshared), ("as served", report.after))
    most = max(words.joined(figure.flops).at(n) for _, figure in figures)
    rows = [
        (
            escape(name),
            bar(figure.flops, n, most),
            *(words.quantity(number) for number in (figure.flops.once, figure.flops.each, figure.flops.at(n))),
            words.quantity(figure.flops.elementwise_at(n)),
            words.duration(figure.time),
        )
        for name, figure in figures
    ]
    headers = ("", "", "once", "per candidate", "per request", "elementwise", "estimated time")
    found.append(table(headers, rows, numbers=range(2, 7)))
    found.append(
        "<p class=dim>FLOPs of matrix products, and elementwise work. "
        '<span class="key once"></span> once per request <span class="key each"></span> per candidate '
        '<span class="key elementwise"></span> elementwise</p>'
    )
    return section(f"FLOPs per request at {n:,} candidates", "\n".join(found))


def _lines(report: Report) -> str:
    """The user's model, line by line, with what became of the calls in each."""
    calls = [node for node in report.nodes if node.op not in ("input", "output")]
    grouped: dict[Line, list[NodeFacts]] = {}
    for node in calls:
        if node.line is not None:
            grouped.setdefault(node.line, []).append(node)
    if not grouped:
        return ""
    n, rows = report.candidates, []
    for line, nodes in sorted(grouped.items(), key=lambda item: (item[0].file, item[0].number)):
        before, after = (sum((flops(node) for node in nodes), Flops()) for flops in (_before, _share))
        numbers = (before.at(n), after.at(n)) if _products(report) else (_all(before, n), _all(after, n))
        rows.append(
            (
                f"<code class=where>{escape(str(line))}</code><br><code>{escape(line.code)}</code>"
                f"<div class=chips>{''.join(map(_chip, nodes))}</div>",
                *map(_quantity, numbers),
                words.change(*numbers),
            )
        )
    key = " ".join(f'<span class="chip {kind}">{text}</span>' for kind, text in _KINDS.items())
    body = f"<p class=dim>What became of each call: {key}. Point at one for its reason.</p>"
    return section("The model by line", body + table(("line", "before", "after", "change"), rows, range(1, 4)))


_KINDS = {"once": "once per request", "split": "split", "each": "per candidate"}


def _kind(node: NodeFacts) -> str:
    work = node.share
    is_split = bool(work.once or work.elementwise_once) or node.rank is Rank.MIXED
    if node.rank is Rank.RANK2 and not node.why:
        return "once"
    return "split" if is_split and not node.refusal else "each"


def _chip(node: NodeFacts) -> str:
    tip = node.why or (f"needs the target alone: {node.label}" if node.rank is not Rank.RANK2 else node.label)
    return f'<span class="chip {_kind(node)}" title="{escape(tip)}">{escape(node.name)}</span> '


def _refusals(report: Report) -> str:
    rows = [
        (
            escape(refusal.sentence) + _behind(refusal.nodes),
            _quantity(refusal.after.each),
            _quantity(refusal.after.elementwise_each),
            _where(refusal.line),
        )
        for refusal in report.refusals
    ]
    headers = ("why", "per candidate", "elementwise", "line")
    return section("Not improved, and why", table(headers, rows, numbers=(1, 2))) if rows else ""


def _behind(nodes: Sequence[str]) -> str:
    return f"<br><span class=dim>behind it {escape(words.listed(nodes, 6))}</span>" if nodes else ""


def _declined(report: Report) -> str:
    n = report.candidates
    rows = [
        (
            f"{escape(words.listed(facts.nodes, 6))}<br><span class=dim>{escape(facts.reason)}</span>",
            words.quantity(facts.now.at(n)),
            words.quantity(facts.possible.at(n)),
            "never" if facts.break_even is None else f"{facts.break_even:,}",
            _where(facts.line),
        )
        for facts in report.declined
    ]
    headers = ("what", "per request", "shared", "pays from", "line")
    title = f"Could be shared, but does not pay at {n:,} candidates"
    return section(title, table(headers, rows, numbers=(1, 2, 3))) if rows else ""


def _families(report: Report) -> str:
    n, rows = report.candidates, []
    for family in report.families:
        before, after = family.before.at(n), family.after.at(n)
        elementwise = (family.before.elementwise_at(n), family.after.elementwise_at(n))
        numbers = (*map(_quantity, (before, after)), words.change(before, after), *map(_quantity, elementwise))
        rows.append((escape(family.name), str(family.nodes), *numbers))
    headers = ("pass", "nodes", "before", "after", "change", "elementwise before", "after")
    return "" if report.unchanged else section("By pass", table(headers, rows, numbers=range(1, 7)))


def _plans(report: Report) -> str:
    found = ""
    if len(report.ranges) > 1:
        rows = [
            (f"{span.first:,} to {span.last:,}", escape(span.policy), _ends(span.after), _ends(span.before))
            for span in report.ranges
        ]
        found = "<h3>By the number of candidates</h3>"
        found += table(("candidates", "plan", "estimated time", "before"), rows, numbers=(2, 3))
    if limit := words.faster_from(report.break_even, len(report.ranges), report.candidates):
        found += f"<p>{limit}</p>"
    rows = [
        (
            escape(tried.name),
            words.quantity(tried.figure.flops.at(report.candidates)),
            words.duration(tried.figure.time),
            "<b>chosen</b>" if tried.chosen else "dropped" if tried.dropped else "",
        )
        for tried in report.policies
    ]
    found += table(("plan", "per request", "estimated time", ""), rows, numbers=(1, 2))
    return section("Plans considered", found)


def _state(report: Report) -> str:
    rows = [
        (
            f"<code>{escape(tensor.name)}</code>",
            "x".join(map(str, tensor.shape)) or "scalar",
            escape(tensor.dtype),
            words.size(tensor.bytes),
        )
        for tensor in sorted(report.state, key=lambda tensor: -tensor.bytes)
    ]
    title = f"State: {words.size(report.state_bytes)} per request"
    return section(title, table(("tensor", "shape", "type", "size"), rows, numbers=(3,))) if rows else ""


def _every_node(report: Report) -> str:
    rows = [
        (
            f"<code>{escape(node.name)}</code>",
            f"<code>{escape(node.module)}</code>",
            escape(node.label),
            _quantity(node.before.each),
            _quantity(node.share.once),
            _quantity(node.share.each),
            escape(node.why or node.rule),
        )
        for node in report.nodes
    ]
    headers = ("node", "module", "rank", "before, per candidate", "once", "per candidate", "rule, or why it stays")
    return f"<details><summary>Every node</summary>{table(headers, rows, numbers=(3, 4, 5))}</details>"


# ----------------------------------------------------------------------------------------------------- pieces


def section(title: str, body: str) -> str:
    """A headed part of a page; `body` is HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def table(headers: Cells, rows: Iterable[Cells], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML; it scrolls by itself where the page is narrow."""

    def row(cells: Cells, tag: str) -> str:
        return "".join(
            f"<{tag}{f' class={_NUMBER}' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    head = row([escape(header) for header in headers], "th")
    return f"<div class=scroll><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"


def bar(flops: Flops, candidates: int, most: float) -> str:
    """Work per request as a bar: once, per candidate, elementwise. Of `most`, the longest, it is 160 px long."""
    parts = (
        ("once", flops.once),
        ("each", flops.each * candidates),
        ("elementwise", flops.elementwise_at(candidates)),
    )
    at, found = 0.0, ""
    for kind, work in parts:
        width = 160 * work / most if most else 0
        found += f'<rect class="{kind}" x="{at:.1f}" y="2" width="{width:.1f}" height="10"/>'
        at += width
    return f'<svg width="160" height="14" role="img" aria-label="{words.flop(sum(w for _, w in parts))}">{found}</svg>'


def _two_bars(ends: tuple[float, float], most: float) -> str:
    """Before above after; a bar of `most` FLOPs is 160 px long."""
    bars = (
        f'<rect class="{kind}" y="{y}" width="{160 * flops / most if most else 0:.1f}" height="6"/>'
        for kind, y, flops in zip(("elementwise", "each"), (1, 8), ends, strict=True)
    )
    return f'<svg width="160" height="15" role="img" aria-label="{words.arrow(*ends)}">{"".join(bars)}</svg>'


def _where(line: Line | None) -> str:
    return "" if line is None else f'<code class=where title="{escape(line.code)}">{escape(str(line))}</code>'


def _quantity(number: float) -> str:
    return words.quantity(number) if number else ""


def _ends(times: Sequence[float]) -> str:
    first, last = map(words.duration, times)
    return first if first == last else f"{first} to {last.removeprefix('~')}"


def _before(node: NodeFacts) -> Flops:
    return node.before


def _share(node: NodeFacts) -> Flops:
    return node.share


def _products(report: Report) -> bool:
    return not words.mostly_elementwise(report.before.flops, report.candidates)


def _all(flops: Flops, candidates: int) -> float:
    return words.joined(flops).at(candidates)
