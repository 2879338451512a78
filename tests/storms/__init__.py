"""Storms: commands that are killed, starved, stopped or fed hostile files at random moments, and must lose nothing.

`python -m tests.storms` runs all; `test_storms.py` runs a few of each kind.
"""
