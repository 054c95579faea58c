"""AOTInductor packages: a shared library compiled for this machine's CPU, called from C++ or Python without a graph.

compiled = torch._inductor.aoti_load_package("fast.aoti.pt2")
scores, = compiled(user_id, item_id)               # flat tensors, in the order of compiled.get_metadata()
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from rankopt import compiler
from rankopt.artefacts.parts import Part
from rankopt.artefacts.running import Run
from rankopt.errors import ExportError
from rankopt.exporting import tracing_conditions


def require_compiler() -> None:
    """Raises ExportError where there is no C++ compiler: found out before the work."""
    compiler.require_compiler(
        "an AOTInductor package (.aoti.pt2) is compiled", "export an ONNX model (.onnx) or a torch program (.pt2)"
    )


def write(program: ExportedProgram, part: Part, path: Path, facts: Mapping[str, Any]) -> None:
    """Compiles a part for the CPU. `facts` go into the package's metadata. Raises ExportError where that fails."""
    metadata = {f"rankopt.{name}": json.dumps(fact) for name, fact in facts.items()}
    try:
        with tracing_conditions():
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"aot_inductor.metadata": metadata}
            )
    except Exception as error:  # the compiler raises whatever its layers raise
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"AOTInductor cannot compile the ranker: {first[:300]}\n"
            "  expected: ops that torch.compile takes on CPU\n"
            "  fix: export an ONNX model (.onnx) or a torch program (.pt2)"
        ) from error


def load(part: Part, path: Path) -> Run:
    """The package in a file, as a function of tensors by name."""
    with tracing_conditions():
        compiled = torch._inductor.aoti_load_package(str(path))

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            outputs = compiled(*(inputs[port.name] for port in part.inputs))
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run
