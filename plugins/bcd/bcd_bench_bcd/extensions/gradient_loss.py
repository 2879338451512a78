"""An image-gradient loss: the error of differences between neighbouring pixels, in addition to that of the pixels.

Without it, the few pixels of eyes and lips contribute too little to the loss. The idea is known from frame prediction
(Mathieu et al. 2016).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, Recipe, StepState

__all__ = ["GradientLoss"]


class GradientLoss(Extension):
    name: ClassVar[str] = "gradient_loss"
    summary: ClassVar[str] = "error of the image gradient in addition to that of the pixels"

    weight: float = Field(default=1.0, gt=0)

    def check(self, preset: Recipe) -> None:
        if "patch_skipping" in preset.extensions.names:
            raise ValueError("gradient_loss compares neighbouring patches and cannot be combined with patch_skipping")

    def add_error(self, state: StepState, difference: Tensor, error: Tensor) -> Tensor:
        frames = state.model.decoder.unpatchify(difference)
        steps = (state.penalty(frames.diff(dim=axis)).mean((1, 2, 3, 4)) for axis in (-1, -2))
        return error + self.weight * sum(steps)
