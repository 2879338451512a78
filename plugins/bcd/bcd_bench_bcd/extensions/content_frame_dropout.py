"""In some steps, encode content from a random number of frames, one at least (Table A5 uses one frame)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension, StepState

__all__ = ["ContentFrameDropout"]


class ContentFrameDropout(Extension):
    name: ClassVar[str] = "content_frame_dropout"
    summary: ClassVar[str] = "content from a random number of frames in some steps"
    needs_whole_batch: ClassVar[bool] = True

    probability: float = Field(default=0.1, gt=0, le=1)
    """Probability per step."""

    def augment(self, state: StepState) -> None:
        generator = state.rng.generator
        if float(torch.rand((), generator=generator)) >= self.probability:
            return
        frames = state.content_half.shape[1]
        count = int(torch.randint(1, frames, (), generator=generator)) if frames > 1 else 1
        state.content_subset = torch.randperm(frames, generator=generator)[:count].sort().values
