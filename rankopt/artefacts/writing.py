"""`ranker.export`: choose the format by the ending, write, run, compare, and only then put it in its place.

parts --torch.export--> programs --format--> files in a temporary folder --run--> compared --> moved
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankopt import saved
from rankopt.agreement import Agreement
from rankopt.artefacts import aoti_package, onnx_model, torch_program
from rankopt.artefacts.comparison import CANDIDATES, Scorer, check, examples_for, references, requests_for
from rankopt.artefacts.formats import (
    CANDIDATE,
    CONTEXT,
    Batching,
    Format,
    Signature,
    description_path,
    files_of,
    format_of,
    stage_path,
)
from rankopt.artefacts.many_comparison import DENSE, RAGGED, Requests, many_references
from rankopt.artefacts.many_parts import many_part, many_stage_parts, stages_together
from rankopt.artefacts.parts import (
    Part,
    output_names,
    request_arguments,
    rows_arguments,
    rows_part,
    stage_parts,
    whole_part,
)
from rankopt.artefacts.running import Run
from rankopt.atomic import require_writable, write_together
from rankopt.errors import ExportError, InputError, OutputError
from rankopt.ranker import Ranker
from rankopt.requests import Request
from rankopt.version import __version__

DESCRIPTION_FORMAT = 1
"""The version of the JSON about both stages."""

RUNTIMES = {
    Format.ONNX: "ONNX Runtime",
    Format.PACKAGE: "AOTInductor",
    Format.PROGRAM: "torch.export",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What to write: the file (which names the format), one file or one per stage, and how it is called.

    `many`: how the candidates of many requests come in one call; None for one request per call.
    """

    path: Path
    stages: bool = False
    signature: Signature = Signature.REQUEST
    single_file: int = onnx_model.SINGLE_FILE
    many: Batching | None = None

    @property
    def format(self) -> Format:
        """The format. Raises OutputError where the ending names none."""
        return format_of(self.path)

    @property
    def is_ranker(self) -> bool:
        """Whether a saved ranker is meant, which `rankopt.load` reads."""
        plain = not self.stages and self.signature is Signature.REQUEST and self.many is None
        return self.format is Format.PROGRAM and plain

    def check(self, overwrite: bool) -> None:
        """Finds out before the work what is in its way. Raises OutputError."""
        chosen = self.format
        if self.stages and self.signature is Signature.ROWS:
            raise OutputError(
                f"cannot write {self.path}: stages take a request in two parts, and rows are not in parts.\n"
                "  expected: two stages, or the original's signature\n"
                "  fix: leave out stages=True (--stages) or signature='rows' (--signature rows)"
            )
        if self.many is not None and self.signature is Signature.ROWS:
            raise OutputError(
                f"cannot write {self.path}: rows of the original repeat one request, so they cannot hold many.\n"
                "  expected: many requests per call, or the original's signature\n"
                "  fix: leave out many=... (--many) or signature='rows' (--signature rows)"
            )
        for path in files_of(self.path, self.stages):
            require_writable(path, overwrite)
        if chosen is Format.PACKAGE:
            aoti_package.require_compiler()


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and how well it agrees with the original."""

    files: tuple[Path, ...]
    runtime: str
    """What ran it."""
    agreement: Agreement
    candidates: tuple[int, ...]
    """Numbers of candidates, per request, at which it was compared."""
    state_dtype: torch.dtype | None = None
    """What the state is rounded to, if it is."""
    requests: tuple[int, ...] = ()
    """Numbers of requests per call at which it was compared; none of a file for one request."""

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(path.stat().st_size for path in self.files)


def signature_of(name: str) -> Signature:
    """A signature by its name. Raises InputError for one that does not exist."""
    try:
        return Signature(name)
    except ValueError:
        known = ", ".join(f"'{signature.value}'" for signature in Signature)
        raise InputError(f"there is no signature '{name}'.\n  expected: {known}\n  fix: name one of them") from None


def batching_of(name: str | None) -> Batching | None:
    """A way to put many requests in one call by its name. Raises InputError for one that does not exist."""
    try:
        return None if name is None else Batching(name)
    except ValueError:
        known = ", ".join(f"'{batching.value}'" for batching in Batching)
        raise InputError(
            f"there is no way '{name}' to put many requests in one call.\n  expected: {known}\n  fix: name one of them"
        ) from None


def export(ranker: Ranker, order: Order, overwrite: bool = False, example_inputs: Any = None) -> Export:
    """Writes a ranker for a serving stack, all files or none. See `Ranker.export`."""
    order.check(overwrite)
    _require_numpy_state(ranker, order)
    if order.many is None:
        found = references(ranker, requests_for(ranker, example_inputs))
    else:
        stages_together(ranker, order.many)  # refuses before the work
        found = many_references(ranker, examples_for(ranker, example_inputs), order.many)
    agreements: list[Agreement] = []

    def fill(folder: Path) -> None:
        inside = replace(order, path=folder / order.path.name)
        with torch.no_grad():
            scorer = _write_stages(ranker, inside) if order.stages else _write_one(ranker, inside)
            agreements.append(check(RUNTIMES[order.format], scorer, found, output_names(ranker)))
        if order.stages:
            _describe(ranker, inside, agreements[0])

    files = write_together(order.path, fill, overwrite)
    candidates, requests = _compared(order)
    return Export(tuple(files), RUNTIMES[order.format], agreements[0], candidates, ranker.state_dtype, requests)


def _compared(order: Order) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of candidates per request, and of requests per call, at which a file is compared."""
    if order.many is None:
        return CANDIDATES, ()
    calls = DENSE if order.many is Batching.DENSE else RAGGED
    return tuple(sorted({n for lengths in calls for n in lengths})), tuple(len(lengths) for lengths in calls)


def _require_numpy_state(ranker: Ranker, order: Order) -> None:
    """Raises ExportError for ONNX stages that would hand each other what ONNX Runtime's numpy arrays cannot hold."""
    names = [tensor.name for tensor in ranker.stages.state if tensor.dtype is torch.bfloat16]
    if names and order.stages and order.format is Format.ONNX:
        raise ExportError(
            f"ONNX stages cannot hand over a state in bfloat16, which numpy does not have: {', '.join(names)}.\n"
            "  expected: float32 or float16\n"
            "  fix: state_dtype float16, one file instead of stages, or a torch program (.pt2)"
        )


# ------------------------------------------------------------------------------------------------------ one file


def _write_one(ranker: Ranker, order: Order) -> Scorer:
    """Writes the whole ranker; returns what gives its scores."""
    path = order.path
    if order.is_ranker:
        saved.save(ranker, path)
        return lambda request: torch_program.run_saved_ranker(path, request)
    if order.many is not None:
        part, batching = many_part(ranker, order.many), order.many
        run_many = _write_part(ranker, part, path, order)
        return lambda requests: run_many(requests.arguments(part, batching))
    if order.format is Format.PROGRAM:
        part = rows_part(ranker)
        torch_program.save(torch_program.drop_in_program(ranker), path, _facts(ranker, part))
        return lambda request: torch_program.run_drop_in(ranker, path, request)
    rows = order.signature is Signature.ROWS
    part = rows_part(ranker, exact=order.format is Format.ONNX) if rows else whole_part(ranker)
    run = _write_part(ranker, part, path, order)

    def score(request: Request) -> list[Tensor]:
        return run(rows_arguments(part, ranker, request) if rows else request_arguments(part, request))

    return score


def _write_part(ranker: Ranker, part: Part, path: Path, order: Order) -> Run:
    """Writes a part in the format of the order, and reads it back."""
    program, facts = part.program(), _facts(ranker, part)
    if order.format is Format.ONNX:
        onnx_model.write(program, part, path, facts, order.single_file)
        return onnx_model.load(part, path)
    if order.format is Format.PACKAGE:
        aoti_package.write(program, part, path, facts)
        return aoti_package.load(part, path)
    torch_program.save(program, path, facts)
    return torch_program.load(part, path)


def _facts(ranker: Ranker, part: Part) -> dict[str, Any]:
    """What a file says of itself: its inputs in order, its outputs, the program and the weights that it was made of."""
    return {
        "version": __version__,
        **asdict(ranker.variant.version()),
        "inputs": [port.to_json() for port in part.inputs],
        "outputs": list(part.outputs),
    }


# ------------------------------------------------------------------------------------------------------ both stages


def _write_stages(ranker: Ranker, order: Order) -> Scorer:
    """Writes both stages; returns what gives the scores of one after the other."""
    parts = _stage_parts(ranker, order)
    runs = {stage: _write_part(ranker, part, stage_path(order.path, stage), order) for stage, part in parts.items()}

    def arguments(part: Part, given: Request | Requests, state: Mapping[str, Tensor] | None = None) -> Any:
        if isinstance(given, Request):
            return request_arguments(part, given, state)
        assert order.many is not None
        return given.arguments(part, order.many, state)

    def score(given: Request | Requests) -> list[Tensor]:
        results = runs[CONTEXT](arguments(parts[CONTEXT], given))
        state = dict(zip(parts[CONTEXT].outputs, results, strict=True))
        return runs[CANDIDATE](arguments(parts[CANDIDATE], given, state))

    return score


def _stage_parts(ranker: Ranker, order: Order) -> dict[str, Part]:
    return stage_parts(ranker) if order.many is None else many_stage_parts(ranker, order.many)


def _describe(ranker: Ranker, order: Order, agreement: Agreement) -> None:
    """Writes the JSON about both stages and the state between them."""
    parts = _stage_parts(ranker, order)
    stages = {
        stage: {
            "file": stage_path(order.path, stage).name,
            "inputs": [port.to_json() for port in part.inputs],
            "outputs": list(part.outputs),
        }
        for stage, part in parts.items()
    }
    state = [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "bytes": tensor.bytes,
        }
        for tensor in ranker.stages.state
    ]
    candidates, requests = _compared(order)
    description = {
        "format": DESCRIPTION_FORMAT,
        "versions": {"rankopt": __version__, "torch": torch.__version__},
        **asdict(ranker.variant.version()),
        "state_dtype": None if ranker.state_dtype is None else str(ranker.state_dtype).removeprefix("torch."),
        "many": None if order.many is None else order.many.value,
        **stages,
        "state": state,
        "state_bytes": sum(tensor.bytes for tensor in ranker.stages.state),
        "flops_saved_per_state_byte": None if ranker.report is None else ranker.report.saved_per_byte,
        "compared": {"candidates": list(candidates), "requests": list(requests), **asdict(agreement)},
    }
    description_path(order.path).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
