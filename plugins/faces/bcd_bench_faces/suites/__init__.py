"""Suites of real and of rendered faces."""
