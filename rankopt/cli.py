"""`rankopt`: the command line. It reads options, calls `rankopt.commands`, prints; nothing else.

torch is imported by the commands, not here: `rankopt --help` answers at once.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rankopt.artefacts.formats import default_backend, files_of
from rankopt.atomic import require_writable
from rankopt.errors import InputError, OutputError, RankoptError, RolesError, VerificationError
from rankopt.version import __version__

if TYPE_CHECKING:
    import torch

    from rankopt.artefacts.writing import Order
    from rankopt.commands import Exported, Json, Request
    from rankopt.report.tree import Report

REFUSED, USAGE, NOT_IDENTICAL = 1, 2, 3
"""Exit codes; 0 is done."""

F = TypeVar("F", bound=Callable[..., Any])


def numbers(context: click.Context, option: click.Parameter, value: str) -> int | tuple[int, int]:
    """A number of candidates, or both ends of a range of them: 512, 1-2000."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", value)
    ends = [int(number) for number in found.groups() if number] if found else []
    if not ends or ends[0] < 1 or ends[-1] < ends[0]:
        raise click.BadParameter(f"'{value}' is no number of candidates, nor a range. Expected 512, or 1-2000.")
    return ends[0] if len(ends) == 1 else (ends[0], ends[1])


_MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_FILE = click.Path(path_type=Path, allow_dash=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rankopt")
@click.option("--debug", is_flag=True, envvar="RANKOPT_DEBUG", hidden=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Rewrite a trained ranking model: what depends on the request alone is computed once per request.

    SEL selects inputs: by path (user_id), by glob (user_*), or columns of one (x[:, :20]). An option that
    takes several may be repeated, or given them separated by commas.

    \b
    Exit codes: 0 done, 1 the model or file was refused, 2 usage, 3 the scores are not identical.
    """


def exit_code(error: Exception) -> int:
    """What the command ends with."""
    if isinstance(error, VerificationError):
        return NOT_IDENTICAL
    return USAGE if isinstance(error, RolesError | InputError | OutputError) else REFUSED


def plainly(command: F) -> F:
    """Errors of rankopt as one message on stderr and an exit code; with --debug, as they are."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except RankoptError as error:
            context = click.get_current_context()
            if context.find_root().params["debug"]:
                raise
            click.echo(f"Error: {error}", err=True)
            context.exit(exit_code(error))

    return run  # type: ignore[return-value]


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""
    return lambda command: functools.reduce(lambda f, decorate: decorate(f), reversed(decorators), command)


class ZooGroup(click.Group):
    """The commands of `rankopt.zoo`, which are imported when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return self._loaded().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        return self._loaded().get_command(ctx, cmd_name)

    def _loaded(self) -> click.Group:
        from rankopt.zoo.cli import zoo

        return zoo


main.add_command(ZooGroup("zoo", help="Models of the field in plain torch: train, rewrite and compare them."))


_source = options(
    click.argument("model", type=_MODEL),
    click.option("--example", type=_MODEL, help="Example rows: a tuple, dict or tensor by torch.save; or an .npz."),
    click.option("--trust", is_flag=True, help="Read files that run code when they are read (pickles)."),
)
_roles = options(
    click.option("--context", multiple=True, required=True, metavar="SEL", help="Inputs of the request."),
    click.option("--target", multiple=True, metavar="SEL", help="Inputs of a candidate; the rest by default."),
    click.option(
        "--candidates",
        callback=numbers,
        metavar="N|N-M",
        default="512",
        show_default=True,
        help="Usual number per request; over a range, several plans may be kept.",
    ),
    click.option("--backend", help="eager, onnxruntime, or a file by calibrate; by default what runs the output."),
    click.option("--pass", "only", multiple=True, metavar="NAME", help="Use this pass and no other."),
    click.option("--no-pass", "without", multiple=True, metavar="NAME", help="Do not use this pass."),
)
_written = options(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        required=True,
        help="The file to write: .pt2, .onnx or .aoti.pt2.",
    ),
    click.option("--stages", is_flag=True, help="The two stages apart: NAME.context.* and NAME.candidate.*"),
    click.option(
        "--signature",
        type=click.Choice(["request", "rows"]),
        default="request",
        show_default=True,
        help="Context and target apart, or the model's own rows.",
    ),
    click.option(
        "--many",
        type=click.Choice(["dense", "lengths", "request_of"]),
        help="Many requests per call: [B, N], or rows [R] with lengths or request_of.",
    ),
)
_state_dtype = click.option(
    "--state-dtype",
    type=click.Choice(["float16", "bfloat16"]),
    help="Round the state to it. Not exact: the error is measured and shown.",
)
_json = click.option("--json", "json_file", type=_FILE, help="Write the facts as JSON to a file; - for stdout.")
_html = click.option(
    "--html", "html_file", type=click.Path(path_type=Path), help="Write the report as one HTML page to a file."
)
_force = click.option("--force", is_flag=True, help="Overwrite files that exist.")


@main.command()
@_source
@_roles
@_written
@_state_dtype
@click.option("--no-verify", is_flag=True, help="Do not compare the rewritten model with the original.")
@_json
@_html
@_force
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
    from rankopt import commands

    request = read_request(backend=backend or default_backend(output), state_dtype=state_dtype, **roles)
    order = read_order(output, stages, signature, many)
    done = commands.optimize(commands.Source(model, example, trust), request, order, not no_verify, force)
    if done.ranker.report is not None:
        show_report(done.ranker.report, json_file, force)
        write_page(done.ranker.report, output, html_file, force)
    if done.exported is not None:
        show_exported(done.exported, quiet=str(json_file) == "-")
        return
    click.echo(f"{output}: {output.stat().st_size:,} bytes; {model}: {model.stat().st_size:,}", err=True)


@main.command()
@click.argument("ranker", type=_MODEL)
@_written
@click.option("--example", type=_MODEL, help="Example rows to draw requests from; the ranker knows ranges by default.")
@click.option("--trust", is_flag=True, help="Read files that run code when they are read (pickles).")
@click.option("--candidates", type=_COUNT, help="Of several plans, that for this number; the last by default.")
@_state_dtype
@_force
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
    from rankopt import commands

    order = read_order(output, stages, signature, many)
    rounded = read_dtype(state_dtype)
    show_exported(commands.export(ranker, order, example, trust, force, candidates, rounded))


@main.command()
@click.argument("ranker", type=_MODEL)
@click.argument("checkpoint", type=_MODEL)
@_written
@click.option("--model", type=_MODEL, help="The original model, in a file as for optimize, to compare the result with.")
@click.option("--example", type=_MODEL, help="Example rows, as for optimize.")
@click.option("--trust", is_flag=True, help="Read files that run code when they are read (pickles).")
@_force
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

    CHECKPOINT is a state dict of the model (.pt by torch.save, .safetensors), or the retrained model itself (.pt2). The
    result is compared with the retrained model, where --model or CHECKPOINT has it; and what is written is run and
    compared like any export. The output may have any format that export has.

    \b
    rankopt refresh ranker.pt2 new_checkpoint.pt --model model.pt2 -o fresh.pt2
    """
    check_outputs(force, *files_of(output, stages))
    from rankopt import commands

    original = None if model is None else commands.Source(model, example, trust)
    order = read_order(output, stages, signature, many)
    done = commands.refresh(ranker, checkpoint, original, order, example, trust, force)
    if done.comparison is None:
        click.echo("compared with itself in float64 only; --model FILE compares with the retrained model", err=True)
    else:
        click.echo(f"retrained model: {done.comparison.sentence}")
    show_exported(done.exported)


@main.command()
@_source
@_roles
@click.option("--nodes", is_flag=True, help="Also what became of every node.")
@click.option("--labels", is_flag=True, help="Only the rank of every node, and the inputs that it depends on.")
@_json
@_html
@_force
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
    from rankopt import commands

    request = read_request(backend=backend or "eager", **roles)
    report = commands.explain(commands.Source(model, example, trust), request)
    show_report(report, json_file, force, nodes, labels)
    write_page(report, model, html_file, force)


@main.command()
@_source
@click.argument("ranker", type=_MODEL)
@click.option("--requests", type=_COUNT, default=1, show_default=True, help="Per number of candidates.")
@click.option("--many", type=_COUNT, help="Also so many requests in one call, dense and ragged.")
@click.option("--candidates", type=click.IntRange(min=0), multiple=True, help="Per request; may be repeated.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the requests that are drawn.")
@click.option("--reproduction", type=click.Path(path_type=Path), help="Where to write a request that differs.")
@_json
@_force
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
    from rankopt import commands

    source = commands.Source(model, example, trust)
    comparison = commands.verify(source, ranker, requests, candidates, seed, many)
    show_json(comparison.to_json(), json_file, force)
    if reproduction is not None and not comparison.verification.identical:
        comparison.save_reproduction(reproduction, force)
    comparison.check()
    if str(json_file) != "-":
        click.echo(comparison.sentence)


@main.command()
@click.argument("ranker", type=_MODEL)
@click.option("--nodes", is_flag=True, help="Also what became of every node.")
@_json
@_html
@_force
@plainly
def show(ranker: Path, nodes: bool, json_file: Path | None, html_file: Path | None, force: bool) -> None:
    """Show what a saved RANKER says of itself: its inputs, and the report of its making."""
    check_outputs(force, json_file, html_file)
    from rankopt import commands

    description, report = commands.describe(ranker)
    if str(json_file) != "-":
        click.echo(f"{description}\n")
    if report is not None:
        show_report(report, json_file, force, nodes)
        write_page(report, ranker, html_file, force)


@main.command()
@click.argument("files", metavar="OLD [NEW]", nargs=-1, required=True, type=_MODEL)
@_json
@_html
@_force
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

    from rankopt import commands
    from rankopt.report import html
    from rankopt.report.terminal import render_changes

    changes = commands.compare(files)
    show_json(changes.to_json(), json_file, force)
    if html_file is not None:
        commands.write_text(html.changes_page(changes), html_file, force)
    if str(json_file) != "-":
        render_changes(changes, Console())


@main.command()
@click.option("--backend", type=click.Choice(["eager", "onnxruntime"]), default="eager", show_default=True)
@click.option("-o", "--output", type=_FILE, required=True, help="The JSON file to write; - for stdout.")
@_force
@plainly
def calibrate(backend: str, output: Path, force: bool) -> None:
    """Measure what calls cost on this machine, for `rankopt optimize --backend FILE`. Takes some seconds."""
    check_outputs(force, output)
    from rankopt import commands

    show_json(commands.calibrate(backend), output, force)


def read_request(
    context: Sequence[str],
    target: Sequence[str],
    candidates: int | tuple[int, int],
    backend: str,
    only: Sequence[str],
    without: Sequence[str],
    state_dtype: str | None = None,
) -> Request:
    """The options about roles, prices and passes. Raises RolesError for a pass that does not exist."""
    from rankopt import commands

    selected = split_selectors(target) or None
    passes = commands.passes_used(split_selectors(only), split_selectors(without))
    profile = commands.read_profile(backend)
    return commands.Request(split_selectors(context), selected, candidates, profile, passes, read_dtype(state_dtype))


def read_dtype(name: str | None) -> torch.dtype | None:
    """An element type by its name."""
    import torch

    return None if name is None else getattr(torch, name)


def read_order(output: Path, stages: bool, signature: str, many: str | None) -> Order:
    """The options about what is written."""
    from rankopt.artefacts.writing import Order, batching_of, signature_of

    return Order(output, stages, signature_of(signature), many=batching_of(many))


def split_selectors(values: Sequence[str]) -> list[str]:
    """Values that may hold several, separated by commas; a comma in brackets separates columns."""
    parts: list[str] = []
    for value in values:
        parts.append("")
        depth = 0
        for char in value:
            depth += (char == "[") - (char == "]")
            if char == "," and not depth:
                parts.append("")
            else:
                parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def check_outputs(force: bool, *paths: Path | None) -> None:
    """Finds out before the work what could not be written after it."""
    for path in paths:
        if path is not None and str(path) != "-":
            require_writable(path, force)


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
    from rankopt import commands
    from rankopt.report import html

    commands.write_text(html.page(report, file.name), html_file, force)


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
    from rankopt import commands

    if str(json_file) == "-":
        sys.stdout.write(commands.to_text(data))
    else:
        commands.write_json(data, json_file, force)
