"""How a report looks: a golden text, and the widths and places in which it has to look well."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rankopt.cost import Flops
from rankopt.labels import Rank
from rankopt.report import terminal
from rankopt.report.tree import (
    FamilyFacts,
    Figure,
    Line,
    NodeFacts,
    PolicyFacts,
    RefusalFacts,
    Report,
    StateTensor,
    VerificationFacts,
)

GOLDEN = Path(__file__).with_name("golden.txt")
FILE = "/home/user/model.py"


def node(name: str, op: str, rank: Rank, number: int, code: str, **facts: object) -> NodeFacts:
    """One node; what is not said is nothing."""
    defaults = {
        "shared": {Rank.RANK2: 1.0, Rank.MIXED: 0.5}.get(rank, 0.0),
        "inputs": ("item", "user"),
        "before": Flops(),
        "after": Flops(),
        "done_in": (),
        "rule": "",
        "refusal": "",
    }
    line = Line(FILE, number, code) if number else None
    return NodeFacts(name=name, op=op, rank=rank, line=line, **(defaults | facts))


CAT, HIDDEN, OUT = (
    "x = torch.cat([user, item], 1)",
    "h = torch.relu(self.hidden(x))",
    "return self.out(h.topk(4)[0])",
)
NODES = (
    node("user", "input", Rank.RANK2, 0, "", inputs=("user",)),
    node("item", "input", Rank.RANK3, 0, "", inputs=("item",)),
    node("cat", "aten.cat.default", Rank.MIXED, 12, CAT, rule="concatenation.cat"),
    node("linear", "aten.linear.default", Rank.RANK3, 13, HIDDEN, rule="linear.linear",
         before=Flops(0, 2048), after=Flops(1024, 0, 32), done_in=("relu",)),
    node("relu", "aten.relu.default", Rank.RANK3, 13, HIDDEN, rule="elementwise.function",
         before=Flops(0, 0, 0, 32), after=Flops(0, 1024, 0, 64)),
    node("topk", "aten.topk.default", Rank.OPAQUE, 14, OUT, refusal="an order"),
    node("linear_1", "aten.linear.default", Rank.RANK3, 14, OUT, rule="linear.linear",
         before=Flops(0, 8), after=Flops(0, 8)),
)  # fmt: skip

REPORT = Report(
    candidates=1000,
    policy="full",
    unchanged="",
    before=Figure(Flops(0, 2056, 0, 32), 180_000.0),
    unshared=Figure(Flops(0, 2056, 0, 32), 170_000.0),
    after=Figure(Flops(1024, 1032, 32, 64), 95_000.0),
    state=(StateTensor("state_linear", (32,), "float32", 128),),
    policies=(
        PolicyFacts("split only", Figure(Flops(1024, 1032, 32, 64), 90_000.0), chosen=False, dropped=True),
        PolicyFacts("full", Figure(Flops(1024, 1032, 32, 64), 95_000.0), chosen=True, dropped=False),
        PolicyFacts("unchanged", Figure(Flops(0, 2056, 0, 32), 180_000.0), chosen=False, dropped=False),
    ),
    nodes=NODES,
    families=(
        FamilyFacts("concatenation", 1, Flops(), Flops()),
        FamilyFacts("elementwise", 1, Flops(0, 0, 0, 32), Flops(0, 0, 0, 64)),
        FamilyFacts("linear", 2, Flops(0, 2056), Flops(1024, 1032, 32)),
    ),
    refusals=(
        RefusalFacts(
            "relu", "aten.relu.default", "relu mixes context and target",
            Line(FILE, 13, HIDDEN), Flops(0, 8, 0, 64), ("topk", "linear_1"),
        ),
        RefusalFacts("topk", "aten.topk.default", "an order", Line(FILE, 14, ""), Flops(0, 0, 0, 4), ()),
    ),
    verification=VerificationFacts(
        True, "float32", (1, 64), 1.3e-15, 1.1e-7, 1e-7, 0.9, 1.0, 1.0, 1.0, 0, 0, 0
    ),
    notes=("Gram matrices counted as computed",),
)  # fmt: skip


def test_golden_text() -> None:
    assert terminal.plain(REPORT, 80, nodes=True) + "\n" == GOLDEN.read_text()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("nodes", [False, True])
def test_fits_and_is_plain_ascii(width: int, nodes: bool) -> None:
    text = terminal.plain(REPORT, width, nodes=nodes)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= width
    assert ("By node" in text) is nodes


def test_says_below_which_number_of_candidates_the_model_is_faster() -> None:
    shown = " ".join(terminal.plain(replace(REPORT, break_even=240), 80).split())
    assert "Faster than the model from 240 candidates on, by estimate; for fewer, candidates=(1, 1000) keeps" in shown
    for always in (replace(REPORT, break_even=1), REPORT):
        assert "Faster than" not in terminal.plain(always, 80)


def test_long_names_are_cut_and_not_wrapped() -> None:
    long = "_".join(["embedding"] * 12)
    nodes = tuple(replace(n, name=long, done_in=(long,)) for n in NODES)
    state = tuple(StateTensor(f"{long}_{i}", (1, 2, 3), "float32", 24) for i in range(30))
    lines = terminal.plain(replace(REPORT, nodes=nodes, state=state), 80, nodes=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("embedding_emb" in line for line in lines) == len(NODES) + 12
    assert any(line.startswith("and 18 more") for line in lines)


def test_a_wide_terminal_shows_the_rule_or_the_reason() -> None:
    lines = {line.split()[0]: line for line in terminal.plain(REPORT, 120, nodes=True).splitlines() if line}
    assert lines["cat"].endswith("concatenation.cat")
    assert lines["topk"].endswith("an order")


def test_the_unchanged_model_has_no_table_of_passes() -> None:
    text = terminal.plain(replace(REPORT, unchanged="no law saves any work in it"))
    assert text.startswith("unchanged: 2.1 MFLOP per request at 1,000 candidates; no law")
    assert "By pass" not in text


def test_labels_show_the_users_code_as_it_is() -> None:
    file = io.StringIO()
    terminal.render_labels(REPORT, Console(file=file, width=100))
    lines = {line.split()[0]: line for line in file.getvalue().splitlines()}
    assert "mixed 50%" in lines["cat"]
    assert "item, user" in lines["cat"]
    assert "model.py:12  x = torch.cat([user, item], 1)" in lines["cat"]  # brackets are no markup
    assert max(map(len, lines.values())) <= 100


def test_colours_are_for_terminals_only() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    terminal.render(REPORT, Console(file=plain, width=80))
    terminal.render(REPORT, Console(file=coloured, width=80, force_terminal=True, color_system="standard"))
    assert "\x1b" not in plain.getvalue()
    assert "\x1b" in coloured.getvalue()


def test_repr_is_the_sentence_and_str_the_text() -> None:
    assert repr(REPORT) == REPORT.sentence
    assert str(REPORT) == terminal.plain(REPORT)
    assert str(REPORT).startswith("2.1 -> 1.0 MFLOP per request at 1,000 candidates (-50%): 1.0 kFLOP once per")
