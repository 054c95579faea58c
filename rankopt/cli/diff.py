"""`rankopt diff`: what changed from one ranker to another, or from a model to its ranker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_json, write_text
from rankopt.cli.reading import check_outputs


@click.command()
@click.argument("files", metavar="OLD [NEW]", nargs=-1, required=True, type=options.EXISTING)
@options.json_file
@options.html_file
@options.force
@plainly
def diff(files: Sequence[Path], json_file: Path | None, html_file: Path | None, force: bool) -> None:
    """Show what changed, by module of the model: FLOPs per request, what saves most first.

    OLD and NEW are saved rankers, or reports by --json. One alone is compared with the model that it was made of.

    \b
    rankopt diff ranker.pt2
    rankopt diff last_week.pt2 ranker.pt2 --html diff.html
    """
    if len(files) > 2:
        raise click.UsageError(f"{len(files)} files were given, and two at most can be compared.")
    check_outputs(force, json_file, html_file)
    from rich.console import Console

    from rankopt.commands import reports
    from rankopt.report import html
    from rankopt.report.terminal import render_changes

    changes = reports.compare(files)
    show_json(changes.to_json(), json_file, force)
    if html_file is not None:
        write_text(html.changes_page(changes), html_file, force)
    if str(json_file) != "-":
        render_changes(changes, Console())
