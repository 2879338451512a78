"""Train without quantisation first: until `step`, the decoder gets the motion latents themselves.

Pose explains little of the variation between images of faces, and codes that start from an untrained encoder describe
the rest. The decoder of `heads-small` ignored them for 400 steps; 50 steps without codes taught it to use motion. At
`step` the codebook is initialised from the latents.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension, StepState

__all__ = ["VQStart"]


class VQStart(Extension):
    name: ClassVar[str] = "vq_start"
    summary: ClassVar[str] = "quantisation starts after a number of steps"
    needs_whole_batch: ClassVar[bool] = True

    step: int = Field(default=300, ge=1)
    """First step with codes."""

    def codebook_start(self) -> int:
        return self.step

    def before_quantizer(self, state: StepState) -> None:
        state.model.quantizer.bypass = state.step < self.step
