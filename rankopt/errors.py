"""Every exception that rankopt raises on purpose. Imports nothing, so that every layer may raise them.

A message has four parts: what was expected, what was found, where (the user's line or input), and the next
step.
"""


class RankoptError(Exception):
    """Base of all errors of rankopt: `except RankoptError` separates a refused model from a bug."""


class RolesError(RankoptError):
    """An input was given no valid role: a selector matches nothing, or one input has two roles.

    Every input of a ranker is either context (one row per request) or target (one row per candidate). Say
    which inputs are context; what no selector names is target:

        rankopt.optimize(model, context=["user_*", "x[:, :20]"], example_inputs=rows)

    A selector is an input's path (`features.user_id`), a glob (`user_*`), or columns of a packed input (`x[:,
    [0, 3]]`). `rankopt.capture.name_inputs(model, args, kwargs)` lists the paths.
    """


class CaptureError(RankoptError):
    """The model could not be turned into one graph that holds for every number of rows.

    The message names the line of the model that stops it. The usual causes and their fixes:

    - training mode: call `model.eval()` first;
    - a Python branch on a tensor's value (`if mask.any():`): write it with `torch.where`;
    - `.item()`, `.tolist()`, `nonzero`, boolean indexing with a computed mask: their result has a size that
      depends on the data; multiply by the mask, or use `masked_fill` and `torch.where`;
    - a row count baked into the program: take it from the input (`x.shape[0]`, or -1 in a reshape) at every
      call;
    - an ExportedProgram with a fixed leading dimension: export it again with `dynamic_shapes`.
    """


class InputError(RankoptError):
    """Inputs of a call do not fit the model: a name, dtype, shape, device or number of rows.

    The examples of one call must all have the same number of rows; a context has one row per request; the
    inputs of a target have one row per candidate, all of them the same number. Convert them before the call:
    rankopt never casts, moves or broadcasts silently.
    """


class StageError(RankoptError):
    """A stage was asked for a value that it cannot have, or was handed a state that is not its own.

    The message gives the path by which a target input reaches the context stage, or the name of the state
    that is missing. A state belongs to the ranker, and to the weights, that made it: run `context_stage`
    again.
    """


class VerificationError(RankoptError):
    """The rewritten ranker and the original do not give the same scores.

    The message names the first node that diverges and both distances to the float64 result. To find the
    family of laws behind it, switch passes off one at a time (`optimize(..., passes=[...])`, `--no-pass
    NAME`), and report it: a difference beyond rounding is a bug of rankopt, never of the model.
    """


class FormatError(RankoptError):
    """A file is not a model that rankopt can read: missing, truncated, of another kind or version.

    Save models with `torch.export.save(program, "model.pt2")` and rewritten ones with `ranker.save(path)`. A
    file written by a later version of rankopt needs that version.
    """


class OutputError(RankoptError):
    """A file cannot be written: it exists, its folder does not, or the disk is full.

    Nothing is overwritten unless asked for (`overwrite=True`, `--force`), and a file is written whole or not
    at all: after this error, what was there before is still there.
    """


class ExportError(RankoptError):
    """A ranker cannot be written in the format that was asked for.

    The message names what stands in the way: an op or an element type that the format or its runtime does not have, or
    a tool that is missing (an AOTInductor package needs a C++ compiler). A file that can be written but gives other
    scores is a VerificationError. Nothing is left behind in either case.
    """


class DuplicateRuleError(RankoptError):
    """Two rules claim the same operator.

    An operator has one law. Extend the rule that exists (the message gives both places of definition), or
    register yours for another overload.
    """
