"""What an error of rankopt ends a command with: a message and an exit code, never a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from rankopt.errors import InputError, OutputError, RankoptError, RolesError, VerificationError

REFUSED, USAGE, NOT_IDENTICAL = 1, 2, 3
"""Exit codes; 0 is done."""

F = TypeVar("F", bound=Callable[..., Any])


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


def exit_code(error: Exception) -> int:
    """What the command ends with."""
    if isinstance(error, VerificationError):
        return NOT_IDENTICAL
    return USAGE if isinstance(error, RolesError | InputError | OutputError) else REFUSED
