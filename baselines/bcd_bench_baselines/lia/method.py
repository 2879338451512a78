"""LIA as a bcd-bench method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcd_bench_baselines.common.checkpoints import blank, load_published
from bcd_bench_baselines.common.frame_method import CommonConfig, FrameMethod, Frames
from bcd_bench_baselines.common.random_weights import fill_seeded
from bcd_bench_baselines.common.stylegan2 import blur_kernel, spread_weights
from bcd_bench_baselines.common.torch_compile import compiled
from bcd_bench_baselines.lia.network import LIA, SIZE
from bcd_bench_baselines.lia.specs import HOW_TO

__all__ = ["LIAConfig", "LIAMethod", "to_signed", "to_uint8"]


class LIAConfig(CommonConfig):
    """Settings specific to LIA."""

    mode: Literal["relative", "absolute"] = "relative"
    """"relative" adds the driving motion since the first driving frame to the source's pose (the demonstration for
    VoxCeleb), "absolute" uses the driving pose (its evaluation, and the weights `ted.pt`)."""


class LIAMethod(FrameMethod):
    """The latent image animator (Wang et al., 2022)."""

    Config: ClassVar[type[CommonConfig]] = LIAConfig
    config: LIAConfig
    name = "lia"
    how_to = HOW_TO

    def load_weights(self, weights: Path | None) -> None:
        self.network = blank(LIA)
        if weights is None:
            # the fixed filters after zero insertion sum to 4
            kernels = {"blur.kernel": blur_kernel(4), "upsample.kernel": blur_kernel(4), "0.kernel": blur_kernel(1)}
            fill_seeded({"gen": self.network}, self.config.seeded or 0, kernels)
            spread_weights(self.network)
        else:
            load_published({"gen": self.network}, weights, model="LIA", hint=self.how_to)
        self.network.to(self.device)
        self.basis = self.network.dec.direction.basis()
        self._alphas: Callable[[Tensor], Tensor] = self.network.alphas
        self._synthesise: Callable[[Tensor, Sequence[Tensor]], Tensor] = self.network.dec
        if self.config.compile:
            self._compile()

    def _compile(self) -> None:
        """Compile both steps for full batches: see `FrameMethod.full`."""
        frames = torch.zeros(self.config.batch_frames, 3, SIZE, SIZE, device=self.device)
        with torch.inference_mode():
            self._alphas = compiled(self.network.alphas, lambda alphas: alphas(frames))
            source = self.network.encode_source(frames[:1])
            latents = self.network.latents(source, self._alphas(frames), self.basis)
            with self.autocast():
                self._synthesise = compiled(self.network.dec, lambda dec: dec(latents, source.maps))

    @torch.inference_mode()
    def animate(self, source: Frames, driving: Frames) -> Frames:
        """Animate uint8[H, W, 3] by uint8[T, H', W', 3]: uint8[T, H', W', 3].

        The driving pose is computed in float32 for any `dtype`; images are computed in `dtype`.
        """
        encoded = self.network.encode_source(to_signed(source[None]).to(self.device))
        alphas = torch.cat([self.alphas(driving[part]) for part in self.batches(len(driving))])
        first = alphas[:1] if self.config.mode == "relative" else None
        latents = self.network.latents(encoded, alphas, self.basis, first)
        frames = []
        with self.autocast():
            for part in self.batches(len(driving)):
                batch = latents[part]
                images = self._synthesise(self.full(batch), encoded.maps)[: len(batch)]
                frames.append(_resized(to_uint8(images), driving.shape[1:3]))
        return np.concatenate(frames)

    def alphas(self, frames: Frames) -> Tensor:
        """Magnitudes [B, 20] of frames uint8[B, H, W, 3] along the directions of motion."""
        return self._alphas(self.full(to_signed(frames).to(self.device)))[: len(frames)]


def to_signed(frames: Frames) -> Tensor:
    """uint8[B, H, W, 3] -> float32[B, 3, 256, 256] in -1..1; other sizes are resized by Pillow's bicubic filter."""
    pixels = torch.tensor(_resized(frames, (SIZE, SIZE))).permute(0, 3, 1, 2).contiguous()
    return (pixels.float() / 255 - 0.5) * 2


def to_uint8(values: Tensor) -> Frames:
    """float[B, 3, H, W] in about -1..1 -> uint8[B, H, W, 3] as in LIA's evaluation: x * 127.5 + 128, clipped.

    (Its demonstration rescales every clip to the full range by the clip's extremes, so that frames would depend on each
    other.)
    """
    levels = (values.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    frames: Frames = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return frames


def _resized(frames: Frames, size: Sequence[int]) -> Frames:
    if frames.shape[1:3] == tuple(size):
        return np.ascontiguousarray(frames)
    height, width = size
    kernel = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), kernel)) for frame in frames])
