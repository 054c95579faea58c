"""`rankopt show`: what a saved ranker says of itself."""

from __future__ import annotations

from pathlib import Path

import click

from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_report, write_page
from rankopt.cli.reading import check_outputs


@click.command()
@click.argument("ranker", type=options.EXISTING)
@click.option("--nodes", is_flag=True, help="Also what became of every node.")
@options.json_file
@options.html_file
@options.force
@plainly
def show(ranker: Path, nodes: bool, json_file: Path | None, html_file: Path | None, force: bool) -> None:
    """Show what a saved RANKER says of itself: its inputs, and the report of its making."""
    check_outputs(force, json_file, html_file)
    from rankopt.commands import reports

    description, report = reports.describe(ranker)
    if str(json_file) != "-":
        click.echo(f"{description}\n")
    if report is not None:
        show_report(report, json_file, force, nodes)
        write_page(report, ranker, html_file, force)
