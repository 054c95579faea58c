"""What commands print, and what they write of it to files: reports, JSON and HTML pages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankopt.atomic import write_whole

if TYPE_CHECKING:
    from rankopt.commands.exports import Exported
    from rankopt.report.tree import Report

Json = dict[str, Any]


def show_report(report: Report, json_file: Path | None, force: bool, nodes: bool = False, labels: bool = False) -> None:
    """Prints a report, or its JSON where that goes to stdout."""
    show_json(report.to_json(), json_file, force)
    if str(json_file) == "-":
        return
    from rich.console import Console

    from rankopt.report.terminal import render, render_labels

    if labels:
        render_labels(report, Console())
        return
    render(report, Console(), nodes=nodes)


def write_page(report: Report, file: Path, html_file: Path | None, force: bool) -> None:
    """Writes a report about the model or ranker in `file` as an HTML page, where one was asked for."""
    if html_file is None:
        return
    from rankopt.report import html

    write_text(html.page(report, file.name), html_file, force)


def show_exported(exported: Exported, quiet: bool = False) -> None:
    """Prints how a file agrees with the original, and the sizes of what was written."""
    if not quiet:
        click.echo(exported.sentence)
    for path in exported.export.files:
        click.echo(f"{path}: {path.stat().st_size:,} bytes", err=True)


def show_json(data: Json, json_file: Path | None, force: bool) -> None:
    """Writes facts as JSON to where they shall go, if anywhere."""
    if json_file is None:
        return
    if str(json_file) == "-":
        sys.stdout.write(to_text(data))
    else:
        write_text(to_text(data), json_file, force)


def to_text(data: Json) -> str:
    """Plain data as a JSON text."""
    return json.dumps(data, indent=2) + "\n"


def write_text(text: str, path: Path, overwrite: bool) -> None:
    """Writes a text to a file."""
    write_whole(path, lambda file: file.write(text.encode()), overwrite)
