"""A sign of life while a command works."""

from contextlib import AbstractContextManager, nullcontext

from rich.console import Console


def working(what: str) -> AbstractContextManager[object]:
    """A spinner on the terminal while something takes its time; nothing where stderr is a file or a pipe."""
    console = Console(stderr=True)
    return console.status(what) if console.is_terminal else nullcontext()
