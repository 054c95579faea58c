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
    """Makes the code of these methods the instance's own.

    torch.compile keeps what it compiled with the code of a function, at most eight versions, and asks them in turn at
    each call. Of one class with a forward for all models, a process would compile eight, and run the ninth as it is.
    """
    for name in methods:
        shared = getattr(type(instance), name)
        code = shared.__code__.replace()
        own = FunctionType(code, shared.__globals__, name, shared.__defaults__, shared.__closure__)
        own.__kwdefaults__, own.__doc__, own.__annotations__ = (
            shared.__kwdefaults__,
            shared.__doc__,
            shared.__annotations__,
        )
        own.__qualname__, own.__module__ = shared.__qualname__, shared.__module__
        instance.__dict__[name] = MethodType(own, instance)
