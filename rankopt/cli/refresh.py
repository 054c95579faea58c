"""`rankopt refresh`: new weights for a saved ranker."""

from __future__ import annotations

from pathlib import Path

import click

from rankopt.artefacts.formats import files_of
from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_exported
from rankopt.cli.reading import check_outputs, read_order


@click.command()
@click.argument("ranker", type=options.EXISTING)
@click.argument("checkpoint", type=options.EXISTING)
@options.written
@click.option(
    "--model", type=options.EXISTING, help="The original model, in a file as for optimize, to compare the result with."
)
@click.option("--example", type=options.EXISTING, help="Example rows, as for optimize.")
@click.option("--trust", is_flag=True, help="Read files that run code when they are read (pickles).")
@options.force
@plainly
def refresh(
    ranker: Path,
    checkpoint: Path,
    output: Path,
    stages: bool,
    signature: str,
    many: str | None,
    model: Path | None,
    example: Path | None,
    trust: bool,
    force: bool,
) -> None:
    """Put the weights of CHECKPOINT into a saved RANKER. Nothing is optimised again.

    CHECKPOINT is a state dict of the model (.pt by torch.save, .safetensors), or the retrained model itself (.pt2,
    .onnx). The result is compared with the retrained model, where --model or CHECKPOINT has it; and what is written is
    run and compared like any export. The output may have any format that export has.

    \b
    rankopt refresh ranker.pt2 new_checkpoint.pt --model model.pt2 -o fresh.pt2
    """
    check_outputs(force, *files_of(output, stages))
    from rankopt.commands import exports
    from rankopt.commands.sources import Source

    original = None if model is None else Source(model, example, trust)
    order = read_order(output, stages, signature, many)
    done = exports.refresh(ranker, checkpoint, original, order, example, trust, force)
    if done.comparison is None:
        click.echo("compared with itself in float64 only; --model FILE compares with the retrained model", err=True)
        if done.unread:
            more = f" and {len(done.unread) - 8:,} more" if len(done.unread) > 8 else ""
            click.echo(f"not read by the ranker: {', '.join(done.unread[:8])}{more}", err=True)
    else:
        click.echo(f"retrained model: {done.comparison.sentence}")
    show_exported(done.exported)
