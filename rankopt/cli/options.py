"""The options that commands share. A command says `@options.roles`, and takes their values as its arguments."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rankopt.backends import PROFILES

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A file to read."""
FILE = click.Path(path_type=Path, allow_dash=True)
"""A file to write; - for stdout."""
COUNT = click.IntRange(min=1)

F = TypeVar("F", bound=Callable[..., Any])


def numbers(context: click.Context, option: click.Parameter, value: str) -> int | tuple[int, int]:
    """A number of candidates, or both ends of a range of them: 512, 1-2000."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", value)
    ends = [int(number) for number in found.groups() if number] if found else []
    if not ends or ends[0] < 1 or ends[-1] < ends[0]:
        raise click.BadParameter(f"'{value}' is no number of candidates, nor a range. Expected 512, or 1-2000.")
    return ends[0] if len(ends) == 1 else (ends[0], ends[1])


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""
    return lambda command: functools.reduce(lambda f, decorate: decorate(f), reversed(decorators), command)


source = together(
    click.argument("model", type=EXISTING),
    click.option("--example", type=EXISTING, help="Example rows: a tuple, dict or tensor by torch.save; or an .npz."),
    click.option("--trust", is_flag=True, help="Read files that run code when they are read (pickles)."),
)
roles = together(
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
    click.option("--backend", help=f"{', '.join(PROFILES)}, or a file by calibrate; by default what runs the output."),
    click.option("--threads", type=COUNT, help="Threads that will work on one request there; 2 by default."),
    click.option("--pass", "only", multiple=True, metavar="NAME", help="Use this pass and no other."),
    click.option("--no-pass", "without", multiple=True, metavar="NAME", help="Do not use this pass."),
)
written = together(
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
state_dtype = click.option(
    "--state-dtype",
    type=click.Choice(["float16", "bfloat16"]),
    help="Round the state to it. Not exact: the error is measured and shown.",
)
json_file = click.option("--json", "json_file", type=FILE, help="Write the facts as JSON to a file; - for stdout.")
html_file = click.option(
    "--html", "html_file", type=click.Path(path_type=Path), help="Write the report as one HTML page to a file."
)
force = click.option("--force", is_flag=True, help="Overwrite files that exist.")
