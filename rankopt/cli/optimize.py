"""`rankopt optimize`: a model, rewritten and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rankopt.artefacts.formats import default_backend, files_of
from rankopt.cli import options
from rankopt.cli.failures import plainly
from rankopt.cli.printing import show_exported, show_report, write_page
from rankopt.cli.reading import check_outputs, read_order, read_request


@click.command()
@options.source
@options.roles
@options.written
@options.state_dtype
@click.option("--no-verify", is_flag=True, help="Do not compare the rewritten model with the original.")
@options.json_file
@options.html_file
@options.force
@plainly
def optimize(
    model: Path,
    example: Path | None,
    trust: bool,
    output: Path,
    stages: bool,
    signature: str,
    many: str | None,
    state_dtype: str | None,
    no_verify: bool,
    json_file: Path | None,
    html_file: Path | None,
    force: bool,
    backend: str | None,
    **roles: Any,
) -> None:
    """Rewrite MODEL and save the result: as a ranker, or for a serving stack, by the ending of OUTPUT.

    MODEL is a torch.export program (.pt2) or an ONNX model (.onnx); a pickled module (.pt) needs --trust and
    --example.

    \b
    rankopt optimize dlrm.pt2 --context 'user_*' --context 'x[:, :20]' -o ranker.pt2
    rankopt optimize dlrm.pt2 --context 'user_*' -o fast.onnx
    """
    check_outputs(force, *files_of(output, stages), json_file, html_file)
    from rankopt.commands import rewriting
    from rankopt.commands.sources import Source

    request = read_request(backend=backend or default_backend(output), state_dtype=state_dtype, **roles)
    order = read_order(output, stages, signature, many)
    done = rewriting.optimize(Source(model, example, trust), request, order, not no_verify, force)
    if done.ranker.report is not None:
        show_report(done.ranker.report, json_file, force)
        write_page(done.ranker.report, output, html_file, force)
    if done.exported is not None:
        show_exported(done.exported, quiet=str(json_file) == "-")
        return
    click.echo(f"{output}: {output.stat().st_size:,} bytes; {model}: {model.stat().st_size:,}", err=True)
