"""Metrics of faces."""
