"""Executors for bcd-bench: Ray and Slurm."""

__version__ = "0.1.0"
