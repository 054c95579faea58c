"""Rewrites a trained ranker so that whatever depends on the request alone is computed once per request."""

from rankopt.pipeline import explain, optimize
from rankopt.ranker import Ranker

__version__ = "0.1.0"
__all__ = ["Ranker", "explain", "optimize"]
