"""Ours: halves of a training clip in other colours, so that colours can come from content alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["draw_colours", "recoloured"]

HUE, GAIN, CONTRAST, BRIGHTNESS = 0.5, 0.25, 0.2, 0.08
"""Spreads at strength 1: radians of turn about grey, of the logarithms of channel gains and contrast, of an offset."""
UNCHANGED = 0.25
"""Share of halves that keep their colours, as all clips do when the model is used."""


def draw_colours(count: int, strength: float, generator: torch.Generator | None) -> Tensor:
    """`count` affine maps of RGB in 0..1, float32 [count, 3, 4]: a turn of hue, gains, contrast and an offset."""
    angle, contrast, offset = (torch.randn(count, generator=generator) * strength for _ in range(3))
    gains = torch.exp(torch.randn(count, 3, generator=generator) * strength * GAIN)
    kept = torch.rand(count, generator=generator) < UNCHANGED
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
    maps[kept] = torch.cat([identity, torch.zeros(3, 1)], -1)
    return maps


def recoloured(frames: Tensor, colours: Tensor) -> Tensor:
    """Clips [B, T, 3, H, W] in [-1, 1], each through its map [B, 3, 4], clipped to the range again."""
    unit = (frames + 1) / 2
    mixed = torch.einsum("bij,btjhw->btihw", colours[..., :3].to(unit), unit)
    return (mixed + colours[:, None, :, 3, None, None].to(unit)).clamp(0, 1) * 2 - 1
