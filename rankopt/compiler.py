"""The C++ compiler that torch.compile and AOTInductor need on a CPU."""

from __future__ import annotations

from rankopt.errors import ExportError


def require_compiler(compiled: str, instead: str) -> None:
    """Raises ExportError where there is none: found out before the work. `compiled` says for what it is needed."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ExportError(
            f"{compiled}, and there is no C++ compiler.\n"
            "  expected: g++ or clang++ on the PATH, or the name of one in CXX\n"
            f"  found: none that runs\n  fix: install g++, or {instead}"
        ) from error
