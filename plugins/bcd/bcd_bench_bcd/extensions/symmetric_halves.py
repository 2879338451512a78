"""Use both halves of a clip as content and as driving clip.

With "both", each half drives the other: one encoder pass serves two decoder samples. With "random", one random half per
clip drives the other. The paper takes content from the first half and motion from the second.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, Recipe, StepState
from bcd_bench_bcd.paper.rng import Rng

__all__ = ["SymmetricHalves"]


class SymmetricHalves(Extension):
    name: ClassVar[str] = "symmetric_halves"
    summary: ClassVar[str] = "both halves of a clip drive, each in turn or one at random"

    mode: Literal["both", "random"] = "both"
    """Each half drives the other ("both"), or one random half drives the other ("random")."""

    @property
    def both(self) -> bool:
        return self.mode == "both"

    def check(self, preset: Recipe) -> None:
        if preset.train.direction != "forward":
            raise ValueError(f"symmetric_halves cannot be combined with train.direction={preset.train.direction}")

    def halves(self, clips: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        half = clips.shape[1] // 2
        first, second = clips[:, :half], clips[:, half : 2 * half]
        if self.both:
            return torch.cat([first, second]), torch.cat([second, first])
        swap = (rng.uniform(len(clips)) < 0.5).to(clips.device).view(-1, *[1] * (clips.ndim - 1))
        return torch.where(swap, second, first), torch.where(swap, first, second)

    def augment(self, state: StepState) -> None:
        state.shared_pass = self.both
