"""Ablations of the paper, and of our extensions: `bcd-bench ablate`."""
