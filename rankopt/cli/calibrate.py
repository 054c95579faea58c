"""`rankopt calibrate`: what calls cost on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from rankopt.backends import DEFAULT, PROFILES
from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_json
from rankopt.cli.reading import check_outputs


@click.command()
@click.option("--backend", type=click.Choice(list(PROFILES)), default=DEFAULT.name, show_default=True)
@click.option("-o", "--output", type=options.FILE, required=True, help="The JSON file to write; - for stdout.")
@options.force
@plainly
def calibrate(backend: str, output: Path, force: bool) -> None:
    """Measure what calls cost on this machine, for `rankopt optimize --backend FILE`.

    Takes some seconds, for inductor a minute.
    """
    check_outputs(force, output)
    from rankopt.commands import pricing

    show_json(pricing.calibrate(backend), output, force)
