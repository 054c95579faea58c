"""What torch.compile asks for: a C++ compiler on a CPU, and a function for every ranker."""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any

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


def give_own_code(instance: Any, *methods: str) -> None:
    """Makes the code of these methods the instance's own: see `with_own_code`."""
    for name in methods:
        instance.__dict__[name] = MethodType(with_own_code(getattr(type(instance), name)), instance)


def with_own_code(function: FunctionType) -> FunctionType:
    """The same function with another code object.

    torch.compile keeps what it compiled with the code of a function, at most eight versions, and asks them in turn at
    each call. Of one class with a forward for all models, a process would compile eight, and run the ninth as it is.
    """
    code = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    for name in ("__kwdefaults__", "__doc__", "__annotations__", "__qualname__", "__module__"):
        setattr(own, name, getattr(function, name))
    return own
