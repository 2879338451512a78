"""Gradients that bypass the codebook, as in VQ-VAE (van den Oord et al. 2017).

In the paper, the gradient reaches the encoder only through the relaxed assignment (eq. 2). Once the assignment is
certain, hardly any gradient remains. With this extension the gradient of the quantised motion also reaches the motion
latent directly.
"""

from __future__ import annotations

from typing import ClassVar

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["LatentGradient"]


class LatentGradient(Extension):
    name: ClassVar[str] = "latent_gradient"
    summary: ClassVar[str] = "straight-through gradient from the quantised motion to its latent"
