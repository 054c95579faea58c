"""The page of laws, from the table of rules.

python -m rankopt.report.laws > docs/laws.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

from rankopt import passes
from rankopt.rules import RULES, Rule

HEAD = """\
# The laws

All rules by which rankopt rewrites, by pass. A rule speaks for some ops; where it does not hold it refuses, and the
op is computed as the model wrote it, on tiled rows. "Refuses" lists the reasons that stand in the rule itself; the
algebra that it calls may have others (rows that are summed, ops on integers), all of which are shown in reports.
`--no-pass NAME` switches a pass off.

This page is written by `python -m rankopt.report.laws > docs/laws.md`, from the rules and their docstrings.
"""

_REFUSAL = re.compile(r'Refusal\(\s*f?"([^"]+)"')


def page() -> str:
    """The page as Markdown."""
    return HEAD + "\n" + "\n".join(_section(module.__name__.rsplit(".", 1)[-1]) for module in passes.PASSES)


def _section(family: str) -> str:
    module = sys.modules[f"rankopt.passes.{family}"]
    files = (
        f"Rules: [`passes/{family}.py`](../passes/{family}.py). Tests: [`tests/laws`](../tests/laws/test_{family}.py)."
    )
    title, rest = _parts(module.__doc__)
    own = dict.fromkeys(rule for rule in RULES.values() if rule.family == family)
    rows = "".join(_row(rule) for rule in own)
    table = f"| rule | law | ops | refuses |\n| --- | --- | --- | --- |\n{rows}" if rows else ""
    return "\n".join(filter(None, (f"## {family}\n", f"{title}\n", f"{rest}\n" if rest else "", f"{files}\n", table)))


def _parts(doc: str | None) -> tuple[str, str]:
    """The first sentence of a docstring, and the rest, in which indented equations are code."""
    first, _, rest = inspect.cleandoc(doc or "").partition("\n\n")
    blocks = ("```\n" + inspect.cleandoc(b) + "\n```" if _is_equation(b) else b for b in rest.split("\n\n") if b)
    return first, "\n\n".join(blocks)


def _is_equation(block: str) -> bool:
    return block.startswith("    ") or (bool(re.search("=|->", block)) and not block.endswith((".", ":")))


def _row(rule: Rule) -> str:
    ops = ", ".join(f"`{name}`" for name in dict.fromkeys(str(target).removeprefix("aten.") for target in rule.targets))
    cells = (f"`{rule.name.split('.', 1)[1]}`", f"`{rule.law}`" if "=" in rule.law else rule.law, ops, *_refusals(rule))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _refusals(rule: Rule) -> Iterator[str]:
    yield "; ".join(dict.fromkeys(_REFUSAL.findall(inspect.getsource(rule.apply))))


if __name__ == "__main__":
    sys.stdout.write(page())
