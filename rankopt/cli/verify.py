"""`rankopt verify`: a saved ranker against the model that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_json
from rankopt.cli.reading import check_outputs


@click.command()
@options.source
@click.argument("ranker", type=options.EXISTING)
@click.option("--requests", type=options.COUNT, default=1, show_default=True, help="Per number of candidates.")
@click.option("--many", type=options.COUNT, help="Also so many requests in one call, dense and ragged.")
@click.option("--candidates", type=click.IntRange(min=0), multiple=True, help="Per request; may be repeated.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the requests that are drawn.")
@click.option("--reproduction", type=click.Path(path_type=Path), help="Where to write a request that differs.")
@options.json_file
@options.force
@plainly
def verify(
    model: Path,
    ranker: Path,
    example: Path | None,
    trust: bool,
    requests: int,
    many: int | None,
    candidates: Sequence[int],
    seed: int,
    reproduction: Path | None,
    json_file: Path | None,
    force: bool,
) -> None:
    """Compare RANKER with the MODEL that it was made of, on random requests.

    Both are run in float64, where they must agree to rounding, and as served, where the ranker may be no less
    accurate than the model. Exit code 3 if they are not identical.
    """
    check_outputs(force, reproduction, json_file)
    from rankopt.commands import comparing
    from rankopt.commands.sources import Source

    source = Source(model, example, trust)
    comparison = comparing.verify(source, ranker, requests, candidates, seed, many)
    show_json(comparison.to_json(), json_file, force)
    if reproduction is not None and not comparison.verification.identical:
        comparison.save_reproduction(reproduction, force)
    comparison.check()
    if str(json_file) != "-":
        click.echo(comparison.sentence)
