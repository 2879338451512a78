"""Baselines for bcd-bench: published motion-transfer methods, external commands, folders of videos."""

__version__ = "0.1.0"
