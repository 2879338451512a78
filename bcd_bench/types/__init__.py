"""Clips, pairs, suites and errors."""
