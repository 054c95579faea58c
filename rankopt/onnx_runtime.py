"""ONNX Runtime, as it is used here: on the CPU, at its default level of optimisation, silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_session(model: Path | bytes) -> Any:
    """A session for a file, or for a model in memory. Raises whatever ONNX Runtime raises."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def reason(error: BaseException) -> str:
    """The innermost cause of an error in one line: exporters and runtimes wrap it several times, in pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
