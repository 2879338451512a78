"""Suites of real and rendered faces."""
