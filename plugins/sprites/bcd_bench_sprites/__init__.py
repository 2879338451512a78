"""Sprites suites and their attribute judge for bcd-bench."""

__version__ = "0.1.0"
