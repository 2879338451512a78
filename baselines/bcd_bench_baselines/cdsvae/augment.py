"""Views for the contrastive terms: the same content in another motion, the same motion with another content.

Another motion is the clip's frames in random order. Another content is the clip with its colours distorted and, in half
of the cases, blurred, in the manner of SimCLR (Chen et al. 2020), alike in all frames of a clip.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["distort_content", "shuffle_frames"]

GREY_CHANCE, BLUR_CHANCE = 0.2, 0.5
BLUR_RADIUS, BLUR_SIGMA = 2, (0.1, 2.0)
STRENGTH = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
"""SimCLR's colour distortion at strength 1: factors from 1 - s to 1 + s, hue by up to 0.2 of a turn."""
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""RGB to luma and two chroma axes; a turn of the chroma plane is a turn of hue."""


def shuffle_frames(sequences: Tensor, generator: torch.Generator) -> Tensor:
    """Sequences [B, T, ...] with the order of time drawn anew for each."""
    order = torch.rand(sequences.shape[:2], generator=generator).argsort(1).to(sequences.device)
    return sequences[torch.arange(len(sequences), device=sequences.device)[:, None], order]


def distort_content(clips: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Clips [B, T, 3, H, W] in [0, 1] with other brightness, contrast, saturation and hue, some blurred."""
    count = len(clips)
    matrix = colour_matrices(count, strength, generator).to(clips.device)
    contrast = _factors(count, STRENGTH["contrast"] * strength, generator).to(clips.device).view(-1, 1, 1, 1, 1)
    distorted = torch.einsum("bij,btjhw->btihw", matrix, clips)
    grey = distorted.mean(dim=(1, 2, 3, 4), keepdim=True)
    distorted = (grey + contrast * (distorted - grey)).clamp_(0, 1)
    chosen = (torch.rand(count, generator=generator) < BLUR_CHANCE * bool(strength)).nonzero().flatten()
    low, high = BLUR_SIGMA
    sigmas = low + (high - low) * torch.rand(count, generator=generator)
    if len(chosen):
        where = chosen.to(clips.device)
        distorted[where] = blur(distorted[where], sigmas[chosen].to(clips.device))
    return distorted


def colour_matrices(count: int, strength: float, generator: torch.Generator) -> Tensor:
    """[count, 3, 3] maps of RGB: brightness times a turn and a scaling of the chroma plane."""
    brightness = _factors(count, STRENGTH["brightness"] * strength, generator)
    saturation = _factors(count, STRENGTH["saturation"] * strength, generator)
    angle = (2 * torch.rand(count, generator=generator) - 1) * STRENGTH["hue"] * strength * 2 * math.pi
    grey = torch.rand(count, generator=generator) < GREY_CHANCE * bool(strength)
    saturation = saturation.masked_fill(grey, 0)
    chroma = torch.zeros(count, 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * angle.cos()
    chroma[:, 2, 1] = saturation * angle.sin()
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    return brightness[:, None, None] * (torch.linalg.inv(YIQ) @ chroma @ YIQ)


def blur(clips: Tensor, sigmas: Tensor) -> Tensor:
    """Clips [B, T, 3, H, W] under a Gaussian of 5 x 5 taps, clip by clip with its own deviation in pixels [B]."""
    taps = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=clips.device)
    kernel = torch.exp(-(taps**2) / (2 * sigmas[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    planes = clips.flatten(1, 2).transpose(0, 1)  # one group a clip
    planes = functional.pad(planes, (BLUR_RADIUS,) * 4, mode="replicate")
    planes = functional.conv2d(planes, kernel[:, None, None, :], groups=len(clips))
    planes = functional.conv2d(planes, kernel[:, None, :, None], groups=len(clips))
    return planes.transpose(0, 1).unflatten(1, clips.shape[1:3])


def _factors(count: int, spread: float, generator: torch.Generator) -> Tensor:
    return 1 + spread * (2 * torch.rand(count, generator=generator) - 1)
