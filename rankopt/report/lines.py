"""The user's line of a node, off the trace that was recorded with it."""

from __future__ import annotations

import re

from torch import fx

from rankopt.diagnosis import is_users
from rankopt.report.tree import Line

_FRAME = re.compile(
    r'^ *File "(?P<file>[^"]+)", line (?P<number>\d+), in [^\n]*(?:\n(?! *File ")(?P<code>[^\n]*))?',
    re.MULTILINE,
)


def user_line(node: fx.Node) -> Line | None:
    """The innermost line of the user's source at which `node` was traced; None if none was recorded."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    users = [frame for frame in frames if is_users(frame["file"])]
    if not users:
        return None
    frame = users[-1]
    return Line(frame["file"], int(frame["number"]), (frame["code"] or "").strip())
