"""The HTML page: one file that needs nothing else, with the facts of the report, and code of users as it is."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from small_ranker import Small, example_rows

import rankopt
from rankopt.report import html
from rankopt.report.changes import REST, changes
from rankopt.report.tree import Line, Report

VOID = {"meta", "br", "rect", "col"}


class Checked(HTMLParser):
    """Reads a page; every tag that is opened must be closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report() -> Report:
    found = rankopt.optimize(Small().eval(), ["user_id"], example_inputs=example_rows(), candidates=2000).report
    assert found is not None
    return found


def test_the_page_says_what_the_report_says(report: Report) -> None:
    page = Checked(html.page(report, "small.pt2"))
    assert str(report).splitlines()[0] in page.text
    assert all(node.name in page.text for node in report.nodes if node.line is not None)
    assert all(tensor.name in page.text for tensor in report.state)
    assert all(policy.name in page.text for policy in report.policies)


def test_the_page_needs_nothing_else(report: Report) -> None:
    text = html.page(report, "small.pt2")
    assert not Checked(text).tags & {"script", "link", "img", "iframe"}
    assert "http" not in text
    assert "url(" not in text


def test_code_of_users_is_text(report: Report) -> None:
    code = "if a < b and c > d: x = '</code><script>'"
    nodes = tuple(replace(node, line=Line("m.py", 3, code)) for node in report.nodes)
    page = Checked(html.page(replace(report, nodes=nodes), "<b>"))
    assert code in page.text
    assert "script" not in page.tags


def test_changes_add_up(report: Report) -> None:
    found = changes([report], ["small.pt2"])
    assert found.total.flops == ((report.before.flops.at(2000), report.after.flops.at(2000)),)
    assert [change.saved for change in found.modules] == sorted((c.saved for c in found.modules), reverse=True)
    assert len({change.name for change in found.modules} - {REST}) >= 2
    page = Checked(html.changes_page(found))
    assert all(change.name in page.text for change in found.modules)


def test_of_two_reports_what_each_serves_is_compared(report: Report) -> None:
    found = changes([report, report], ["old", "new"])
    assert found.total.saved == 0
    assert found.sentence.startswith("served: ")
    assert all(change.flops[0] == change.flops[1] for change in found.modules)
