"""Skip patches that are black in the whole training set, and compute patches that are mostly black less often.

In a training step, a patch that is not black in a fraction r of all frames is computed with probability
max(sqrt(r), min_keep_prob) and weighted by the inverse. In the last tenth of the steps all patches are computed, as in
sampling. This saves time and changes no expected value.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, Recipe

__all__ = ["SKIP_UNTIL", "PatchSkipping", "keep_probabilities"]

SKIP_UNTIL = 0.9
"""Fraction of the steps after which all patches are computed."""


class PatchSkipping(Extension):
    name: ClassVar[str] = "patch_skipping"
    summary: ClassVar[str] = "always black patches are skipped, mostly black ones computed less often"
    needs_random_order: ClassVar[bool] = True
    needs_pixels: ClassVar[bool] = True

    min_keep_prob: float = Field(default=0.3, gt=0, le=1)
    """Lowest probability with which a patch is computed in a step; 1 computes all patches that are not always black."""

    def check(self, preset: Recipe) -> None:
        if "canonical_features" in preset.extensions.names:
            raise ValueError("patch_skipping and canonical_features are mutually exclusive")


def keep_probabilities(occupancy: Tensor, min_keep_prob: float) -> Tensor:
    """Probability [S] with which each patch is computed, from the fraction [S] of frames in which it is not black."""
    chances = occupancy.sqrt().clamp(min_keep_prob, 1)
    chances[occupancy.argmax()] = 1  # at least one patch in every step
    return chances
