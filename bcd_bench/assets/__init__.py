"""Weights and data by name, and hashes of files."""
