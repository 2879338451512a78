"""Talking heads: suites of real and rendered faces, and metrics for them."""

__version__ = "0.1.0"
