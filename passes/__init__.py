"""The laws, one file per algebraic family. A file is a pass: it has a name and can be switched off.

Importing this package fills the rule table (`rankopt.rules.RULES`). Each rule states its law, checks its condition, and
raises `Refusal` with the reason where it does not hold.
"""

if __name__ != "rankopt.passes":
    raise ImportError("import rankopt.passes, not passes: a second copy would register every rule twice")

from rankopt.passes import (
    assignment,
    attention,
    bilinear,
    concatenation,
    data_movement,
    elementwise,
    gather,
    linear,
    normalization,
    opaque,
    recurrent,
    reductions,
    rowwise,
    segments,
    softmax,
)

PASSES = (
    data_movement,
    gather,
    concatenation,
    assignment,
    elementwise,
    linear,
    bilinear,
    reductions,
    segments,
    softmax,
    normalization,
    attention,
    recurrent,
    rowwise,
    opaque,
)
"""All passes, in the order in which reports list them."""

NAMES: tuple[str, ...] = tuple(module.__name__.rsplit(".", 1)[-1] for module in PASSES)
"""Their names, as `--no-pass` and `passes=` take them."""
