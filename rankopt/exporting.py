"""A model over rows as an ExportedProgram whose number of rows is one symbol.

`torch.export` is asked first with a named dimension (an error where the model fixes the number of rows), then
with automatic ones (for sizes related in a way that a name does not allow). A model that uses the number of
rows as a Python int is traced at several row counts first (row_counts).
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from rankopt.calls import CallSignature, row_counts_unlike, with_rows
from rankopt.diagnosis import ROWS_AS_INT, explain, line_of_error, refusal
from rankopt.errors import CaptureError, ExportError
from rankopt.programs import line_of_row_guard, row_range, shared_rows
from rankopt.row_counts import capture_at_row_counts


@dataclass(slots=True)
class OutputStructure:
    """How a model nests its output, noted while it runs (torch.export resets the attributes of a module)."""

    spec: pytree.TreeSpec | None = None
    constants: dict[int, Any] = field(default_factory=dict)  # leaves that are no tensors, by position


class RowFunction(nn.Module):
    """A model as a function of a flat list of tensors, so that however it is called it is exported alike."""

    def __init__(self, model: nn.Module, call: CallSignature) -> None:
        super().__init__()
        self.training = False  # not .eval(): the model is the user's, and not every model has that method
        self.model = model
        self.output = OutputStructure()
        self._call = call

    def forward(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """The tensors among the model's outputs; how they were nested is noted in `output`."""
        args, kwargs = self._call.unflatten(dict(zip(self._call.names, rows, strict=True)))
        leaves, self.output.spec = pytree.tree_flatten(self.model(*args, **kwargs))
        self.output.constants = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, Tensor)}
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


def export_rows(function: RowFunction, examples: Mapping[str, Tensor]) -> ExportedProgram:
    """Exports `function` for every number of rows. Raises CaptureError where that cannot be done."""
    sizes = [tensor.shape for tensor in (*examples.values(), *function.parameters(), *function.buffers())]
    (rows,) = row_counts_unlike(sizes, 1)
    tensors = tuple(with_rows(examples, rows).values())
    with tracing_conditions():
        try:
            return _export(function, tensors)
        except CaptureError:
            raise
        except Exception as error:  # torch raises whatever its layers raise
            stopped = error
        try:
            return _export(capture_at_row_counts(function, examples), tensors)
        except Exception as error:
            # The better answer is the one that has a line: torch's, unless it only stopped at the end.
            located = isinstance(error, CaptureError) and line_of_error(stopped) is None
            raise (error if located else explain(stopped)) from stopped


def exported(
    module: nn.Module, examples: tuple[Any, ...], shapes: Any, named: dict[str, Any] | None = None
) -> ExportedProgram:
    """A rewritten ranker as a program. Raises ExportError where torch cannot follow it for any number of rows."""
    try:
        with tracing_conditions():
            return torch.export.export(module, examples, named, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises whatever its layers raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            f"torch.export cannot write the ranker: {' '.join(lines[:2])[:300]}\n"
            "  expected: ops that it follows for any number of rows; torch.chunk(x, k, 0) it fixes to a size\n"
            "  fix: write torch.split(x, rows, 0) in the model, or use the ranker in Python"
        ) from error


@contextlib.contextmanager
def tracing_conditions() -> Iterator[None]:
    """No gradients, no fused kernel in place of the attention layers that were written, nothing printed."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    disabled = logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _export(function: nn.Module, tensors: Sequence[Tensor]) -> ExportedProgram:
    """The program for any number of rows, by a named dimension or else by automatic ones."""
    try:
        return _export_with(Dim("rows"), function, tensors)
    except Exception as error:
        if "specialized it to be a constant" in str(error):
            raise  # an automatic dimension would be specialised too, without a word
        stopped = error
    try:
        program = _export_with(Dim.AUTO, function, tensors)
    except Exception:
        raise stopped from None
    if shared_rows(program) is None:
        raise stopped
    first, last = row_range(program)
    if first > 2 or last is not None:
        bounds = f"what was traced holds from {first} rows" + (f" to {last}" if last is not None else "")
        raise refusal(ROWS_AS_INT, line_of_row_guard(program), bounds)
    return program


def _export_with(rows: Any, function: nn.Module, tensors: Sequence[Tensor]) -> ExportedProgram:
    dynamic = tuple({0: rows} if tensor.dim() else None for tensor in tensors)
    return torch.export.export(function, tuple(tensors), dynamic_shapes=(dynamic,), strict=False)
