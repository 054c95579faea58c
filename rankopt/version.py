"""The version of this package, for whoever writes it down without importing the package's public face."""

__version__ = "0.1.0"
