"""Augmented views for the contrastive terms: the same content with another motion, the same motion with another
content.

For another motion, the clip's frames are shuffled. For another content, the clip's colours are distorted and, in half
of the cases, blurred, as in SimCLR (Chen et al. 2020), in the same way for all frames of a clip.
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
"""SimCLR's colour distortion at strength 1: factors from 1 - s to 1 + s, hue by up to 0.2 of a full rotation."""
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""RGB to luma and two chroma axes; rotating the chroma plane rotates the hue."""


def shuffle_frames(sequences: Tensor, generator: torch.Generator) -> Tensor:
    """Sequences [B, T, ...] with the frames of each in a random order."""
    order = torch.rand(sequences.shape[:2], generator=generator).argsort(1).to(sequences.device)
    return sequences[torch.arange(len(sequences), device=sequences.device)[:, None], order]


def distort_content(clips: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Clips [B, T, 3, H, W] in [0, 1] with random brightness, contrast, saturation and hue, some of them blurred."""
    count = len(clips)
    matrix = colour_matrices(count, strength, generator).to(clips.device)
    contrast = _factors(count, STRENGTH["contrast"] * strength, generator).to(clips.device).view(-1, 1, 1, 1, 1)
    distorted = torch.einsum("bij,btjhw->btihw", matrix, clips)
    grey = distorted.mean(dim=(1, 2, 3, 4), keepdim=True)
    distorted = (grey + contrast * (distorted - grey)).clamp_(0, 1)
    blurred = (torch.rand(count, generator=generator) < BLUR_CHANCE * bool(strength)).nonzero().flatten()
    low, high = BLUR_SIGMA
    sigmas = low + (high - low) * torch.rand(count, generator=generator)
    if len(blurred):
        where = blurred.to(clips.device)
        distorted[where] = blur(distorted[where], sigmas[blurred].to(clips.device))
    return distorted


def colour_matrices(count: int, strength: float, generator: torch.Generator) -> Tensor:
    """RGB maps [count, 3, 3]: brightness times a rotation and scaling of the chroma plane."""
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
    """Blur clips [B, T, 3, H, W] with a 5 x 5 Gaussian; `sigmas` [B] are the standard deviations in pixels."""
    taps = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=clips.device)
    kernel = torch.exp(-(taps**2) / (2 * sigmas[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    planes = clips.flatten(1, 2).transpose(0, 1)  # one group per clip
    planes = functional.pad(planes, (BLUR_RADIUS,) * 4, mode="replicate")
    planes = functional.conv2d(planes, kernel[:, None, None, :], groups=len(clips))
    planes = functional.conv2d(planes, kernel[:, None, :, None], groups=len(clips))
    return planes.transpose(0, 1).unflatten(1, clips.shape[1:3])


def _factors(count: int, spread: float, generator: torch.Generator) -> Tensor:
    return 1 + spread * (2 * torch.rand(count, generator=generator) - 1)
