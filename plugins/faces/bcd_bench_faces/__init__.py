"""Talking heads: suites of real and rendered faces, and the metrics that judge them."""

__version__ = "0.1.0"
