"""The HTML pages: whole, self-contained, and harmless whatever the user's names and lines are."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rankopt
from rankopt.errors import FormatError
from rankopt.report import html
from rankopt.report.changes import REST, changes
from rankopt.report.tree import Report

EMPTY = {"meta", "rect", "br"}


class Checker(HTMLParser):
    """Every tag is closed, nothing is loaded, nothing is run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        assert not {"src", "href", "onclick", "onload"} & {name for name, _ in attrs}
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(96, width), nn.Linear(width, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(torch.cat([user, item], 1))))


def explain(width: int, candidates: int = 2000) -> Report:
    request = {"user": torch.randn(1, 80)}, {"item": torch.randn(7, 16)}
    return rankopt.explain(Perceptron(width).eval(), *request, candidates=candidates)


@pytest.fixture(scope="module")
def report() -> Report:
    return explain(64)


@pytest.fixture(scope="module")
def wider() -> Report:
    return explain(128)


def test_a_page_tells_what_the_report_tells(report: Report) -> None:
    page = html.page(report, "model.pt2")
    text = "".join(Checker(page).texts)
    assert report.sentence in text
    assert "return self.out(torch.relu(self.hidden(torch.cat([user, item], 1))))" in text
    assert "relu mixes context and target" in text
    assert all(policy.name in text for policy in report.policies)
    assert "http" not in page
    assert "url(" not in page


def test_what_does_not_pay_is_on_the_page(report: Report) -> None:
    few = explain(1024, 2)
    text = "".join(Checker(html.page(few, "model.pt2")).texts)
    assert "Could be shared, but does not pay at 2 candidates" in text
    assert few.declined[0].reason in text


def test_names_and_lines_of_users_are_text(report: Report) -> None:
    evil = "<script>alert(1)</script>\"'&"
    nodes = tuple(
        replace(node, name=evil, module=evil, why=evil, line=node.line and replace(node.line, code=evil, file=evil))
        for node in report.nodes
    )
    refusals = tuple(replace(refusal, node=evil, reason=evil, nodes=(evil,)) for refusal in report.refusals)
    state = tuple(replace(tensor, name=evil) for tensor in report.state)
    changed = replace(report, nodes=nodes, refusals=refusals, state=state)
    for page in (html.page(changed, evil), html.changes_page(changes([changed], [evil]))):
        assert evil in "".join(Checker(page).texts)
        assert "<script" not in page


# ------------------------------------------------------------------------------------------------ changes


def test_modules_of_one_report_add_up(report: Report) -> None:
    found = changes([report], ["ranker.pt2"])
    assert found.modules[0].name == "hidden"
    model, served = found.total.ends
    assert model == pytest.approx(report.before.flops.at(report.candidates))
    assert served == pytest.approx(report.after.flops.at(report.candidates))
    hidden = found.modules[0]
    assert hidden.ends == pytest.approx((2 * 96 * 64 * 2000, 2 * (80 * 64 + 16 * 64 * 2000)))


def test_what_was_saved_most_comes_first_between_two_reports(report: Report, wider: Report) -> None:
    found = changes([wider, report], ["old", "new"])
    saved = [change.saved for change in found.modules]
    assert saved == sorted(saved, reverse=True)
    assert found.modules[0].name == "hidden"
    assert found.total.saved > 0
    assert "(-" in found.sentence
    Checker(html.changes_page(found))
    assert found.to_json()["titles"] == ["old", "new"]


def test_reports_are_compared_at_one_number_of_candidates(report: Report) -> None:
    found = changes([explain(64, 500), report], ["old", "new"])
    assert found.candidates == 2000
    assert found.modules[0].flops[0][0] == found.modules[0].flops[1][0]


def test_what_is_in_no_module_is_the_rest() -> None:
    class Bare(nn.Module):
        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            return (user * item).sum(1)

    found = changes(
        [rankopt.explain(Bare().eval(), {"user": torch.randn(1, 9)}, {"item": torch.randn(7, 9)})], ["bare"]
    )
    assert [change.name for change in found.modules] == [REST]
    assert found.elementwise


def test_a_report_that_does_not_know_modules_is_refused(report: Report) -> None:
    data = report.to_json()
    for node in data["nodes"]:
        del node["module"], node["share"], node["why"]
    old = Report.from_json(data)
    assert old.after == report.after
    with pytest.raises(FormatError, match="an older rankopt wrote it"):
        changes([old], ["ranker.pt2"])
