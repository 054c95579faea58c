"""`rankopt export`: a saved ranker, written for a serving stack."""

from __future__ import annotations

from pathlib import Path

import click

from rankopt.artefacts.formats import files_of
from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_exported
from rankopt.cli.reading import check_outputs, read_dtype, read_order


@click.command()
@click.argument("ranker", type=options.EXISTING)
@options.written
@click.option(
    "--example", type=options.EXISTING, help="Example rows to draw requests from; the ranker knows ranges by default."
)
@click.option("--trust", is_flag=True, help="Read files that run code when they are read (pickles).")
@click.option("--candidates", type=options.COUNT, help="Of several plans, that for this number; the last by default.")
@options.state_dtype
@options.force
@plainly
def export(
    ranker: Path,
    output: Path,
    stages: bool,
    signature: str,
    many: str | None,
    example: Path | None,
    trust: bool,
    candidates: int | None,
    state_dtype: str | None,
    force: bool,
) -> None:
    """Write a saved RANKER for a serving stack, in the format that the ending of OUTPUT names.

    It is run there and compared with the ranker before anything is put in its place.

    \b
    rankopt export ranker.pt2 -o fast.onnx --stages
    rankopt export ranker.pt2 -o fast.onnx --many request_of
    """
    check_outputs(force, *files_of(output, stages))
    from rankopt.commands import exports

    order = read_order(output, stages, signature, many)
    rounded = read_dtype(state_dtype)
    show_exported(exports.export(ranker, order, example, trust, force, candidates, rounded))
