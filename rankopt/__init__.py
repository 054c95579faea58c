"""Rewrites a trained ranker so that whatever depends on the request alone is computed once per request."""

__version__ = "0.1.0"
