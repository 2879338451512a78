"""Conversion between frames and a model's values: pixels in [-1, 1], or the latents of an autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from bcd_bench_bcd.latents.autoencoders import Autoencoder, open_autoencoder
from bcd_bench_bcd.paper.model import BCD

__all__ = ["FrameCodec", "to_frames"]


def to_frames(values: Tensor) -> Tensor:
    """float [B, T, 3, H, W] in [-1, 1] -> uint8 [B, T, H, W, 3], rounded and clipped."""
    return values.float().clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8).permute(0, 1, 3, 4, 2)


class FrameCodec:
    """uint8 frames [B, T, H, W, 3] <-> a model's values [B, T, C, h, w]. Models of pixels need no autoencoder files."""

    def __init__(self, model: BCD, autoencoder_sha256: str = "") -> None:
        self.model, self.autoencoder_sha256 = model, autoencoder_sha256
        self._autoencoder: Autoencoder | None = None

    def open(self) -> None:
        """Load the autoencoder now rather than at the first clip; raises as `open_autoencoder`."""
        if self.model.config.latent is not None and self._autoencoder is None:
            device = next(self.model.parameters()).device
            self._autoencoder = open_autoencoder(self.model.config, self.autoencoder_sha256, device)

    def values(self, frames: Tensor) -> Tensor:
        """The values of frames. Every clip is encoded separately, so that the result does not depend on the batch."""
        if self.model.config.latent is None:
            return self.model.values(frames)
        self.open()
        assert self._autoencoder is not None
        return self.model.values(torch.stack([self._autoencoder.encode(clip) for clip in frames]))

    def frames(self, values: Tensor) -> Tensor:
        """The frames of values."""
        if self.model.config.latent is None:
            return to_frames(values)
        self.open()
        assert self._autoencoder is not None
        latents = self.model.latents(values)
        return to_frames(torch.stack([self._autoencoder.decode(clip) for clip in latents]))
