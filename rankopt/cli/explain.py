"""`rankopt explain`: the report on a model, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_report, write_page
from rankopt.cli.reading import check_outputs, read_request


@click.command()
@options.source
@options.roles
@click.option("--nodes", is_flag=True, help="Also what became of every node.")
@click.option("--labels", is_flag=True, help="Only the rank of every node, and the inputs that it depends on.")
@options.json_file
@options.html_file
@options.force
@plainly
def explain(
    model: Path,
    example: Path | None,
    trust: bool,
    nodes: bool,
    labels: bool,
    json_file: Path | None,
    html_file: Path | None,
    force: bool,
    backend: str | None,
    **roles: Any,
) -> None:
    """Report what rewriting MODEL would save, and what not and why. Writes nothing but that."""
    check_outputs(force, json_file, html_file)
    from rankopt.commands import rewriting
    from rankopt.commands.sources import Source

    request = read_request(backend=backend or "eager", **roles)
    report = rewriting.explain(Source(model, example, trust), request)
    show_report(report, json_file, force, nodes, labels)
    write_page(report, model, html_file, force)
