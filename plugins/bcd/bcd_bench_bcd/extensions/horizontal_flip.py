"""Flip half of the training clips horizontally."""

from __future__ import annotations

from typing import ClassVar

import torch

from bcd_bench_bcd.extensions.base import Batch, Extension

__all__ = ["HorizontalFlip"]


class HorizontalFlip(Extension):
    name: ClassVar[str] = "horizontal_flip"
    summary: ClassVar[str] = "half of the training clips flipped horizontally"
    needs_random_order: ClassVar[bool] = True
    needs_pixels: ClassVar[bool] = True

    def prepare_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        flipped = (torch.rand(len(batch.clips), generator=generator) < 0.5).to(batch.clips.device)
        clips = torch.where(flipped.view(-1, 1, 1, 1, 1), batch.clips.flip(3), batch.clips)
        return Batch(clips, None if batch.keypoints is None else batch.keypoints.flipped(flipped))
