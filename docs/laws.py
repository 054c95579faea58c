"""Writes docs/laws.md: every law of the rule table, with its equation, its ops, where it refuses, its file and test.

python docs/laws.py
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rankopt.passes import PASSES
from rankopt.rules import RULES, Rule

PAGE = Path(__file__).with_name("laws.md")
MOST_OPS = 4

INTRODUCTION = """# The laws

Every rewriting is one of these equations. A law is a Python function of its own: the file holds it under the name given
here, its test holds a case in which it fires and one in which it refuses. Where a law refuses, or there is none for an
op, the op is computed as the model wrote it, on tiled rows.

In the equations `c` is rank-2 (the same for all candidates), `t` is rank-3, `expand` repeats for every candidate, `cat`
is a concatenation that may interleave. `W` and `b` are weights. How values stay pending is told in
[How rankopt works](design.md).

This page is written by `make laws`.
"""


def page() -> str:
    """The text of the page."""
    return "\n".join([INTRODUCTION, *(family(module) for module in PASSES)])


def family(module: Any) -> str:
    """A pass: what its file says, and a row per rule."""
    name = module.__name__.rpartition(".")[2]
    rules = {rule.name: rule for rule in RULES.values() if rule.family == name}.values()
    text = inspect.getdoc(module) or ""
    head, _, rest = text.partition("\n")
    rows = [
        "| Rule | Law | Ops | What it does | Refuses |",
        "|---|---|---|---|---|",
        *map(row, rules),
    ]
    files = f"File: {link(f'passes/{name}.py')}. Test: {link(f'tests/laws/test_{name}.py')}."
    return f"## {name}\n\n{head}\n\n```text\n{rest.strip()}\n```\n\n{files}\n\n" + "\n".join(rows) + "\n"


def link(path: str) -> str:
    """A link to a file of the repository."""
    return f"[{path}](../{path})"


def row(rule: Rule) -> str:
    """The row of a rule."""
    does = (rule.apply.__doc__ or "").strip().partition("\n")[0]
    cells = (
        f"`{rule.apply.__name__}`",
        f"`{rule.law}`",
        ops(rule),
        does,
        "; ".join(dict.fromkeys(refusals(rule.apply))) or "not by itself",
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def ops(rule: Rule) -> str:
    """The ops that a rule speaks for, of many a few."""
    targets = [op for op, own in RULES.items() if own.name == rule.name]
    names = list(dict.fromkeys(str(op).removeprefix("aten.").removesuffix(".default") for op in targets))
    more = f" and {len(names) - MOST_OPS} more" if len(names) > MOST_OPS else ""
    return ", ".join(f"`{name}`" for name in names[:MOST_OPS]) + more


def refusals(function: Callable[..., Any]) -> Iterator[str]:
    """The reasons in `raise Refusal(...)` of a function, and of those that it calls in its own file."""
    seen, waiting = set[str](), [function]
    while waiting:
        nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(waiting.pop())))))
        yield from _reasons(nodes)
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        helpers = {name: getattr(inspect.getmodule(function), name, None) for name in sorted(called - seen)}
        seen |= called
        own = [f for f in helpers.values() if inspect.isfunction(f) and f.__module__ == function.__module__]
        waiting += [f for f in own if not any(rule.apply is f for rule in RULES.values())]


def _reasons(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and "Refusal" in ast.unparse(node.exc.func):
            reason = node.exc.args[0]
            parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len({rule.name for rule in RULES.values()})} laws")
