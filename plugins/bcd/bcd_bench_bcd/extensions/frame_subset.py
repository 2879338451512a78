"""Use a few random frames of each half per step: many different poses at the cost of few frames."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from bcd_bench_bcd.extensions.base import Batch, Extension, Keypoints

__all__ = ["FrameSubset", "some_of_each_half"]


class FrameSubset(Extension):
    name: ClassVar[str] = "frame_subset"
    summary: ClassVar[str] = "a random subset of the frames of each half per step"
    needs_random_order: ClassVar[bool] = True

    frames: int = Field(default=4, ge=1)
    """Frames used of each half."""

    def prepare_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        if 2 * self.frames >= batch.clips.shape[1]:
            return batch
        indices = some_of_each_half(batch.clips.shape[1], self.frames, generator)
        keypoints = batch.keypoints
        if keypoints is not None:
            keypoints = Keypoints(keypoints.frames[:, indices], keypoints.rest)
        return Batch(batch.clips[:, indices], keypoints)


def some_of_each_half(frames: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Indices int64 [2 * count] of `count` random frames of each half of `frames` frames, in order."""
    half = frames // 2
    first, second = (torch.randperm(half, generator=generator)[:count].sort().values for _ in range(2))
    return torch.cat([first, half + second])
