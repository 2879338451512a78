"""Synthetic talking heads: the parametric head model, its samplers and its renderer."""
