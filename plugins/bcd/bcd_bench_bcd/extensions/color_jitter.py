"""Different colours in the two halves of a training clip, so that colours have to come from content.

Each half gets a random hue rotation, gains, contrast and brightness, and the decoder has to output the driving half in
the colours of the content half. A motion code that encodes colours is useless.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, StepState

__all__ = ["ColorJitter", "apply_colors", "random_colors"]

HUE, GAIN, CONTRAST, BRIGHTNESS = 0.5, 0.25, 0.2, 0.08
"""Standard deviations at strength 1: rotation about grey (radians), log gains of channels, log contrast, offset."""
UNCHANGED = 0.25
"""Fraction of halves that keep their colours, as all clips do at inference."""


class ColorJitter(Extension):
    name: ClassVar[str] = "color_jitter"
    summary: ClassVar[str] = "each half in random colours; the output in those of the content half"
    needs_whole_batch: ClassVar[bool] = True
    needs_pixels: ClassVar[bool] = True

    strength: float = Field(default=0.3, gt=0)
    """Scale of all changes; 1 rotates hues by about half a radian."""

    def augment(self, state: StepState) -> None:
        generator = state.rng.generator
        colors = random_colors(state.batch, self.strength, generator)
        if state.shared_pass:
            driving_colors = colors.roll(state.batch // 2, 0)
        else:
            driving_colors = random_colors(state.batch, self.strength, generator)
        state.content_half = apply_colors(state.content_half, colors)
        if state.canonical:
            state.target = apply_colors(state.driving_half, colors)
        if not state.shared_pass or "content_frame_dropout" in state.extensions.names:
            state.driving_half = apply_colors(state.driving_half, driving_colors)


def random_colors(count: int, strength: float, generator: torch.Generator | None) -> Tensor:
    """`count` random affine maps of RGB in 0..1, float32 [count, 3, 4]: hue rotation, gains, contrast and an offset."""
    angle, contrast, offset = (torch.randn(count, generator=generator) * strength for _ in range(3))
    gains = torch.exp(torch.randn(count, 3, generator=generator) * strength * GAIN)
    unchanged = torch.rand(count, generator=generator) < UNCHANGED
    cosine, sine = torch.cos(angle * HUE), torch.sin(angle * HUE)
    grey = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    identity = torch.eye(3)
    # Rodrigues' rotation about the grey axis
    turn = cosine.view(-1, 1, 1) * (identity - grey) + sine.view(-1, 1, 1) * cross + grey
    scale = torch.exp(contrast * CONTRAST).view(-1, 1, 1)
    matrix = gains.unsqueeze(-1) * turn * scale
    shift = (offset * BRIGHTNESS).view(-1, 1, 1) + 0.5 * (1 - scale)
    maps = torch.cat([matrix, shift.expand(-1, 3, 1)], -1)
    maps[unchanged] = torch.cat([identity, torch.zeros(3, 1)], -1)
    return maps


def apply_colors(frames: Tensor, colors: Tensor) -> Tensor:
    """Apply a colour map [B, 3, 4] to each clip [B, T, 3, H, W] in [-1, 1]; the result is clipped to [-1, 1]."""
    unit = (frames + 1) / 2
    mixed = torch.einsum("bij,btjhw->btihw", colors[..., :3].to(unit), unit)
    return (mixed + colors[:, None, :, 3, None, None].to(unit)).clamp(0, 1) * 2 - 1
