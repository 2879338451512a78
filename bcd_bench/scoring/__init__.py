"""Scoring of outputs: features, metrics, cached scores."""
