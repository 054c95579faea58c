"""Rewrites a trained ranker so that whatever depends on the request alone is computed once per request."""

from typing import TYPE_CHECKING, Any

from rankopt.version import __version__

if TYPE_CHECKING:
    from rankopt.pipeline import explain, optimize
    from rankopt.ranker import Ranker
    from rankopt.saved import load
    from rankopt.state import State
    from rankopt.verification import Verification

__all__ = ["Ranker", "State", "Verification", "__version__", "explain", "load", "optimize"]

_HOMES = {
    "Ranker": "rankopt.ranker",
    "State": "rankopt.state",
    "Verification": "rankopt.verification",
    "explain": "rankopt.pipeline",
    "load": "rankopt.saved",
    "optimize": "rankopt.pipeline",
}


def __getattr__(name: str) -> Any:
    """The public names are imported when they are used: `rankopt --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rankopt' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
