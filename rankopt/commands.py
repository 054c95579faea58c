"""What the command line does: files in, files out. `rankopt.cli` reads the options and prints the results."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn
from torch.export import ExportedProgram

from rankopt import pipeline, refreshing, saved
from rankopt.agreement import Agreement
from rankopt.archive import Kind, kind_of, read_program
from rankopt.artefacts import writing
from rankopt.artefacts.many_comparison import verify_many
from rankopt.artefacts.writing import Export, Order
from rankopt.atomic import write_whole
from rankopt.errors import FormatError, InputError, RolesError, VerificationError
from rankopt.importing.model import import_onnx
from rankopt.interface import Interface, Range
from rankopt.passes import NAMES
from rankopt.prices import DEFAULT, PROFILES, Profile, from_json, profile_of, to_json
from rankopt.ranker import Ranker
from rankopt.report import json as report_json
from rankopt.report import words
from rankopt.report.changes import Changes, changes
from rankopt.report.tree import Report
from rankopt.selectors import Role
from rankopt.verification import Verification
from rankopt.verify import CANDIDATES

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A model to be read: its file, example rows, and whether its author is trusted."""

    path: Path
    example: Path | None = None
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verification of a saved ranker."""

    verification: Verification
    dtype: str
    """Of the scores, as served."""
    state_dtype: torch.dtype | None = None
    """What the state is rounded to, if it is."""
    many: Agreement | None = None
    """Of many requests in one call, where that was asked for."""
    requests: int | None = None
    """How many of them in a call."""

    @property
    def identical(self) -> bool:
        """Whether all scores are the same within rounding."""
        return self.verification.identical and (self.many is None or self.many.identical())

    @property
    def sentence(self) -> str:
        """The result in one sentence, or in one per way to call the ranker."""
        candidates = self.verification.candidates
        found = in_words(self.verification.agreement, self.dtype, candidates, self.state_dtype)
        if self.many is None:
            return found
        numbers = tuple(dict.fromkeys(candidates))
        together = in_words(self.many, self.dtype, numbers, self.state_dtype)
        return f"{found}\n{self.requests:,} requests in one call: {together}"

    def check(self) -> None:
        """Raises VerificationError where scores differ."""
        self.verification.check()
        if self.many is not None and not self.many.identical():
            reasons = "\n  ".join(self.many.reasons())
            raise VerificationError(
                f"{self.requests:,} requests in one call do not have the scores of the original.\n  {reasons}\n"
                "  fix: call the ranker once per request, and report this"
            )

    def to_json(self) -> Json:
        """The result as plain data."""
        divergence = self.verification.divergence
        return {
            "identical": self.identical,
            "state_dtype": None if self.state_dtype is None else str(self.state_dtype).removeprefix("torch."),
            "candidates": list(self.verification.candidates),
            "reasons": list(self.verification.agreement.reasons()),
            "agreement": asdict(self.verification.agreement),
            "divergence": None if divergence is None else asdict(divergence),
            "many": None if self.many is None else {"requests": self.requests, "agreement": asdict(self.many)},
        }

    def save_reproduction(self, path: Path, overwrite: bool) -> None:
        """Writes the worst request; `torch.load(path, weights_only=True)` gives its tensors back."""
        request = self.verification.request
        tensors = {"context": dict(request.context), "target": dict(request.target)}
        write_whole(path, lambda file: torch.save(tensors, file), overwrite)


def in_words(
    agreement: Agreement, dtype: str, candidates: Sequence[int], state_dtype: torch.dtype | None = None
) -> str:
    """An agreement in one sentence. `state_dtype`: what the state is rounded to, so that the scores are not exact."""
    if state_dtype is not None:
        name, order = str(state_dtype).removeprefix("torch."), agreement.order
        errors = (agreement.rewritten_error, agreement.absolute_error)
        return words.rounding(name, *errors, order.top100, order.moved100, candidates)
    ratio = agreement.ratio if math.isfinite(agreement.ratio) else None
    return words.agreement(
        agreement.identical(), agreement.error64, dtype, ratio, agreement.order.swapped_pairs, candidates
    )


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written for a serving stack."""

    export: Export
    dtype: str
    """Of the scores, as served."""

    @property
    def sentence(self) -> str:
        """How its runtime agrees with the original, in one sentence."""
        done = self.export
        found = in_words(done.agreement, self.dtype, done.candidates, done.state_dtype)
        counts = ", ".join(f"{count:,}" for count in done.requests)
        return f"{done.runtime}: {found}{f', in calls of {counts} requests' if counts else ''}"


@dataclass(frozen=True, slots=True)
class Optimized:
    """A ranker that was written, and what was exported of it where that is something else."""

    ranker: Ranker
    exported: Exported | None


@dataclass(frozen=True, slots=True)
class Request:
    """What to make of it: see `rankopt.optimize`."""

    context: Sequence[str]
    target: Sequence[str] | None = None
    candidates: int | tuple[int, int] = 512
    backend: Profile = DEFAULT
    passes: Collection[str] | None = None
    state_dtype: torch.dtype | None = None


def optimize(source: Source, request: Request, order: Order, verification: bool, overwrite: bool) -> Optimized:
    """Reads a model, rewrites it, and writes the ranker, or what is exported of it."""
    order.check(overwrite)
    with working(f"reading {source.path}"):
        model, rows = read_model(source)
    with working(f"rewriting for {_count(request.candidates)}"):
        ranker = pipeline.optimize(
            model,
            verification=verification,
            example_inputs=rows,
            state_dtype=request.state_dtype,
            **_arguments(request),
        )
    with working(f"writing {order.path}"):
        if not order.is_ranker:
            single = ranker.at(ranker.interface.candidates)
            return Optimized(ranker, Exported(writing.export(single, order, overwrite), served_dtype(single)))
        ranker.save(order.path, overwrite)
    return Optimized(ranker, None)


def export(
    ranker: Path,
    order: Order,
    example: Path | None,
    trust: bool,
    overwrite: bool,
    candidates: int | None = None,
    state_dtype: torch.dtype | None = None,
) -> Exported:
    """Writes a saved ranker in another format: of several plans, that for a number of candidates."""
    order.check(overwrite)
    with working(f"reading {ranker}"):
        loaded = saved.load(ranker, trust)
    loaded = loaded.at(loaded.interface.candidates if candidates is None else candidates)
    loaded = loaded if state_dtype is None else loaded.with_state_dtype(state_dtype)
    rows = None if example is None else _read_rows(example)
    with working(f"writing {order.path}"):
        return Exported(writing.export(loaded, order, overwrite, rows), served_dtype(loaded))


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A ranker with new weights, written."""

    comparison: Comparison | None
    """With the retrained model, where that was at hand."""
    exported: Exported


def refresh(
    ranker: Path,
    checkpoint: Path,
    original: Source | None,
    order: Order,
    example: Path | None,
    trust: bool,
    force: bool,
) -> Refreshed:
    """Puts new weights into a saved ranker and writes it: see `rankopt.refreshing`."""
    order.check(force)
    with working(f"reading {ranker}"):
        loaded = saved.load(ranker, trust)
    with working(f"reading {checkpoint}"):
        weights, model = refreshing.read_checkpoint(checkpoint, trust)
    refreshing.put(loaded, weights)
    rows = None if example is None else _read_rows(example)
    if original is not None:
        model, rows = read_model(original)
        refreshing.put_weights(model, weights)
    comparison = None
    with working("comparing"):
        if model is None:
            refreshing.require_precision(loaded, rows)
        else:
            verification = loaded.verify(model=model, example_inputs=rows).check()
            comparison = Comparison(verification, served_dtype(loaded), loaded.state_dtype)
    with working(f"writing {order.path}"):
        written = loaded if order.is_ranker else loaded.at(loaded.interface.candidates)
        done = Exported(writing.export(written, order, force, rows), served_dtype(written))
    return Refreshed(comparison, done)


def read_profile(backend: str) -> Profile:
    """The prices of a backend by its name, or of a file by `rankopt calibrate`."""
    if backend in PROFILES or not Path(backend).exists():
        return profile_of(backend)
    try:
        data = json.loads(Path(backend).read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{backend} is no JSON: {error}.\n  fix: write it with `rankopt calibrate`") from error
    return from_json(data)


def calibrate(backend: str) -> Json:
    """The prices of a backend on this machine, as plain data."""
    from rankopt import calibration

    with working(f"measuring {backend}"):
        measured: Json = to_json(calibration.calibrate(backend))
    return measured


def explain(source: Source, request: Request) -> Report:
    """The report on a model, without a ranker."""
    with working(f"reading {source.path}"):
        model, rows = read_model(source)
    with working(f"looking at it with {_count(request.candidates)}"):
        report: Report = pipeline.explain(model, example_inputs=rows, **_arguments(request))
    return report


def verify(
    source: Source, ranker: Path, requests: int, candidates: Sequence[int], seed: int, many: int | None = None
) -> Comparison:
    """Compares a saved ranker with the model that it was made of; `many`: also this many requests in one call."""
    with working(f"reading {ranker}"):
        loaded = saved.load(ranker, source.trust)
    with working(f"reading {source.path}"):
        model, rows = read_model(source)
    with working("comparing"):
        verification = loaded.verify(requests, candidates or CANDIDATES, model, rows, seed)
        if many is None:
            return Comparison(verification, served_dtype(loaded), loaded.state_dtype)
        original, _ = loaded.original(model, rows)
        together = verify_many(loaded, original, many, candidates or CANDIDATES, seed)
    return Comparison(verification, served_dtype(loaded), loaded.state_dtype, together, many)


def served_dtype(ranker: Ranker) -> str:
    """The element type of the scores, for a sentence."""
    scores = ranker.stages.whole.graph.output_node().all_input_nodes
    dtypes = {str(score.meta["expr"].dtype).removeprefix("torch.") for score in scores}
    return dtypes.pop() if len(dtypes) == 1 else "as served"


def describe(ranker: Path) -> tuple[str, Report | None]:
    """What a saved ranker says of itself, and its report. Graph and weights are not read."""
    metadata = saved.read_metadata(ranker)
    interface, versions = metadata.interface, metadata.versions
    lines = [
        f"{ranker}: a ranker for {_served(interface)} candidates, {ranker.stat().st_size:,} bytes",
        f"by rankopt {versions['rankopt']} with torch {versions['torch']}, {_plans(interface)}",
        f"weights {metadata.weights}",
    ]
    if metadata.state_dtype is not None:
        lines.append(f"state rounded to {str(metadata.state_dtype).removeprefix('torch.')}: the scores are not exact")
    width = max(len(info.name) for info in interface.inputs)
    for role, rows in ((Role.CONTEXT, "1"), (Role.TARGET, "N")):
        for info in interface.expected(role):
            shape = "scalar" if info.shape is None else f"[{', '.join([rows, *map(str, info.shape)])}]"
            dtype = str(info.dtype).removeprefix("torch.")
            lines.append(f"  {role.value:7}  {info.name:{width}}  {dtype:8}  {shape}")
    report = None if metadata.report is None else Report.from_json(metadata.report)
    return "\n".join(lines), report


def compare(files: Sequence[Path]) -> Changes:
    """What changed, by module: in one saved ranker or report, or from the first to the second."""
    return changes([read_report(path) for path in files], [str(path) for path in files])


def read_report(path: Path) -> Report:
    """The report in a saved ranker, or in a JSON file that `--json` wrote. Raises FormatError where there is none."""
    if path.suffix.lower() == ".json":
        try:
            return report_json.loads(path.read_text(encoding="utf-8"))
        except (FormatError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} cannot be read: {error}") from error
    if kind_of(path) is not Kind.RANKER:
        raise FormatError(
            f"{path} is neither a saved ranker nor a report.\n"
            "  expected: what `rankopt optimize -o` wrote, or the .json of `rankopt explain --json`\n"
            f"  fix: rankopt explain {path} --context ... --json report.json"
        )
    report = describe(path)[1]
    if report is None:
        raise FormatError(f"{path} was saved without a report.\n  fix: optimize the model again")
    return report


def write_text(text: str, path: Path, overwrite: bool) -> None:
    """Writes a text to a file."""
    write_whole(path, lambda file: file.write(text.encode()), overwrite)


def _served(interface: Interface) -> str:
    return str(Range(interface.ranges[0].first, interface.ranges[-1].last))


def _plans(interface: Interface) -> str:
    if len(interface.ranges) == 1:
        return f"policy '{interface.policy}'"
    return "policies " + ", ".join(f"'{span.policy}' for {span}" for span in interface.ranges)


def write_json(data: Json, path: Path, overwrite: bool) -> None:
    """Writes plain data to a file."""
    write_text(to_text(data), path, overwrite)


def to_text(data: Json) -> str:
    """Plain data as a JSON text."""
    return json.dumps(data, indent=2) + "\n"


def passes_used(only: Sequence[str], without: Sequence[str]) -> Collection[str] | None:
    """The passes that the options leave; None for all. Raises RolesError for one that does not exist."""
    unknown = [name for name in (*only, *without) if name not in NAMES]
    if unknown:
        raise RolesError(f"there is no pass '{unknown[0]}'.\n  expected: {', '.join(NAMES)}\n  fix: name one of them")
    if not only and not without:
        return None
    return [name for name in (only or NAMES) if name not in without]


# ----------------------------------------------------------------------------------------------- models


def read_model(source: Source) -> tuple[nn.Module | ExportedProgram, Any]:
    """The model in a file, and its example rows (None for a program or an ONNX model, which bring their own).

    Raises FormatError where the file is no model, or one that would have to be trusted.
    """
    rows = None if source.example is None else _read_rows(source.example)
    if source.path.suffix.lower() == ".onnx":
        return import_onnx(source.path), rows
    kind = kind_of(source.path)
    if kind is Kind.RANKER:
        raise FormatError(f"{source.path} is an optimised ranker already.\n  fix: give the original model")
    if kind is not Kind.PICKLE:
        return read_program(source.path, source.trust), rows
    if not source.trust:
        raise FormatError(
            f"{source.path} is {kind.value}, which runs code when it is read.\n"
            "  fix: torch.export.save(program, 'model.pt2'); or --trust, if you know who made it"
        )
    if rows is None:
        raise InputError(
            f"{source.path} is {kind.value}, which has no example rows.\n"
            "  fix: torch.save((tensor, ...), 'rows.pt'), and --example rows.pt"
        )
    return _unpickled(source.path), rows


def _unpickled(path: Path) -> nn.Module:
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling runs the model's own code
        raise FormatError(
            f"{path} cannot be unpickled: {error}.\n"
            "  fix: run where its classes can be imported (PYTHONPATH=...), or torch.export.save it there"
        ) from error
    if isinstance(model, nn.Module):
        return model
    raise FormatError(
        f"{path} holds a {type(model).__name__}, no model.\n"
        "  fix: save the module itself, torch.save(model, ...), not its state dict"
    )


def _read_rows(path: Path) -> Any:
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the safe unpickler stumbles in many ways over what is no pickle
        raise InputError(
            f"{path} holds no example rows: {type(error).__name__}.\n"
            "  fix: torch.save((tensor, ...), 'rows.pt'), or a dict by argument name; numpy.savez('rows.npz', name=...)"
        ) from error


def _count(candidates: int | tuple[int, int]) -> str:
    spans = (candidates, candidates) if isinstance(candidates, int) else candidates
    return f"{Range(*spans)} candidates"


def _arguments(request: Request) -> Json:
    return {
        "context": list(request.context),
        "target": None if request.target is None else list(request.target),
        "candidates": request.candidates,
        "backend": request.backend,
        "passes": request.passes,
    }


def working(what: str) -> AbstractContextManager[object]:
    """A spinner on the terminal while something takes its time; nothing where stderr is a file or a pipe."""
    console = Console(stderr=True)
    return console.status(what) if console.is_terminal else nullcontext()
