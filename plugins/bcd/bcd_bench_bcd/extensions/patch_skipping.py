"""Patches that are black all over the training set are not computed, and patches that seldom show anything seldom.

In a training step, a patch that is non-black in a share r of all frames is computed with probability
max(sqrt(r), min_keep_prob) and weighted by the inverse. In the last tenth of the steps all patches are computed, as in
sampling. It saves time and changes no expectation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension

if TYPE_CHECKING:
    from bcd_bench_bcd.presets.base import Preset

__all__ = ["SKIP_UNTIL", "PatchSkipping", "keep_probabilities"]

SKIP_UNTIL = 0.9
"""Share of the steps after which all patches are computed."""


class PatchSkipping(Extension):
    name: ClassVar[str] = "patch_skipping"
    summary: ClassVar[str] = "patches that are always black are not computed, others by how often they are not black"
    needs_random_order: ClassVar[bool] = True
    needs_pixels: ClassVar[bool] = True

    min_keep_prob: float = Field(default=0.3, gt=0, le=1)
    """Lowest probability of a patch to be computed in a step; 1 computes all patches that are not always black."""

    def check(self, preset: Preset) -> None:
        if "canonical_features" in preset.extensions.names:
            raise ValueError("patch_skipping and canonical_features exclude each other")


def keep_probabilities(occupancy: Tensor, min_keep_prob: float) -> Tensor:
    """Probability [S] of each patch to be computed, from the share [S] of frames in which it is not black."""
    chances = occupancy.sqrt().clamp(min_keep_prob, 1)
    chances[occupancy.argmax()] = 1  # at least one patch in every step
    return chances
