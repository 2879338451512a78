"""Sprites suites and their attribute classifier for bcd-bench."""

__version__ = "0.1.0"
