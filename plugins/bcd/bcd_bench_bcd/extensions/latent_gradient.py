"""Gradients that bypass the codebook, as in VQ-VAE (van den Oord et al. 2017).

The paper's gradient reaches the encoder through the relaxed assignment alone (eq. 2). Where the assignment is decided,
hardly anything passes. With this extension the gradient of the quantised motion reaches the motion latent as well.
"""

from __future__ import annotations

from typing import ClassVar

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["LatentGradient"]


class LatentGradient(Extension):
    name: ClassVar[str] = "latent_gradient"
    summary: ClassVar[str] = "straight-through gradient from the quantised motion to its latent"
