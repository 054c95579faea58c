"""What stopped a capture: the line of the model, the cause in one sentence, the usual fix."""

import os
import re
import sysconfig
import traceback
from dataclasses import dataclass

import torch
from torch import fx

from rankopt.errors import CaptureError

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_RANKOPT = os.path.dirname(os.path.abspath(__file__))  # its own files; the models in rankopt/zoo are like a user's
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


@dataclass(frozen=True, slots=True)
class Cause:
    """A known reason for which a program cannot be captured, recognised by the text of torch's error."""

    pattern: re.Pattern[str]
    sentence: str
    fix: str


ROWS_AS_INT = Cause(
    re.compile(r"specialized it to be a constant|Constraints violated"),
    "the number of rows is used as a Python int in a way that does not hold for other numbers of rows",
    "take it from the input at every call (`x.shape[0]`, `x.new_zeros(x.shape[0], 8)`, -1 in a reshape)",
)
DATA_DEPENDENT_SIZE = Cause(
    re.compile(r"nonzero|masked_select|unique|DynamicOutputShape|size of .* depends on"),
    "a tensor's size depends on the data",
    "keep all rows and use a mask: `torch.where(mask, x, 0.)`, `x.masked_fill(~mask, 0.)`",
)
VALUE_READ = Cause(
    re.compile(r"\.item\(\)|aten\.item|_local_scalar_dense|specialized (integer|float)|\.numpy\(\)|tolist|zuf\d"),
    "the value of a tensor is read into Python (`.item()`, `.tolist()`, `.numpy()`, `int(tensor)`)",
    "keep it a tensor: operators take 0-dim tensors where they take numbers",
)
DATA_DEPENDENT_BRANCH = Cause(
    re.compile(r"guard on data-dependent|data-dependent (control flow|expression|branch)|Eq\(u\d+, 1\)"),
    "a Python branch depends on the value of a tensor",
    "compute both and choose by value: `torch.where(condition, a, b)`",
)
STATE_CHANGED = Cause(
    re.compile(r"assigned during export|mutat|were changed"),
    "forward changes the model's own state, so scores depend on the calls before",
    "do it in training mode only (`if self.training:`), or return the value instead",
)
TRAINING = Cause(
    re.compile(r"(?!)"),  # seen by rankopt itself, never in an error of torch
    "the model is in training mode, where a score depends on chance or on the other rows",
    "call `model.eval()` before capture or export",
)
RANDOM = Cause(
    re.compile(r"(?!)"),
    "the model draws random numbers, so its scores differ from call to call",
    "draw them once, in `__init__`, and keep them in a buffer",
)
_CAUSES = (DATA_DEPENDENT_BRANCH, VALUE_READ, DATA_DEPENDENT_SIZE, STATE_CHANGED, ROWS_AS_INT)


def refusal(cause: Cause, where: str | None, found: str = "") -> CaptureError:
    """The error for a known cause; `where` is the user's line, `found` adds what was seen there."""
    detail = f" ({found})" if found else ""
    return CaptureError(f"{cause.sentence}{detail}.\n  at: {where or 'unknown line'}\n  fix: {cause.fix}")


def explain(error: BaseException) -> CaptureError:
    """The error for whatever torch raised while it traced the model."""
    text = f"{type(error).__name__}: {error}"
    where = line_of_error(error)
    for cause in _CAUSES:
        if cause.pattern.search(text):
            return refusal(cause, where)
    first_line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return CaptureError(
        f"the model cannot be traced: {first_line.strip()}\n"
        f"  at: {where or 'unknown line'}\n"
        "  fix: check that the model runs on these example rows; else rewrite this line with tensor operators"
    )


def line_of_error(error: BaseException) -> str | None:
    """`file:line` of the user's innermost frame on the way to `error`, if there is one."""
    frames = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if is_users(frame.filename)
    ]
    return frames[-1] if frames else None


def line_of_node(node: fx.Node) -> str | None:
    """`file:line` of the user's innermost frame at which the node was traced, if that was recorded."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    users = [f"{file}:{line}" for file, line in frames if is_users(file)]
    return users[-1] if users else None


def is_users(filename: str) -> bool:
    """Whether a source file is the model's: not of torch, of this package, or of the standard library."""
    if filename.startswith("<"):
        return False
    path = os.path.abspath(filename)
    if path.startswith(_TORCH) or os.path.dirname(path) == _RANKOPT:
        return False
    return "site-packages" in path or not path.startswith(_STANDARD_LIBRARY)
