"""Rendering of synthetic heads."""
