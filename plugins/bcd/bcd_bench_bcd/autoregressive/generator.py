"""Prompt in, generated clip out: BCD's encoder, the motion model, and BCD's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.autoregressive.pretrained import weights_with_codes
from bcd_bench_bcd.autoregressive.prompt_encoder import prompt_pipeline
from bcd_bench_bcd.autoregressive.sampling import SamplingConfig, frame_generator, generate_codes
from bcd_bench_bcd.autoregressive.weights import LoadedMotionModel
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.method import fits
from bcd_bench_bcd.inference.pixels import carries_pixels, carry_pixels, resized, shown_size
from bcd_bench_bcd.paper.config import SamplerConfig

__all__ = ["MotionGenerator", "Prompt", "bcd_of"]


def bcd_of(motion: LoadedMotionModel, weights: str | Path | None = None, device: str = "cpu") -> BCD:
    """The BCD model that a motion model belongs to: shipped weights by their hash, or the file `weights`.

    Raises `UsageError` if the weights are not shipped and not given, or are other ones.
    """
    if weights is None:
        name = weights_with_codes(motion.bcd_sha256)
        if name is None:
            raise UsageError(
                f"the motion model belongs to BCD weights that are not shipped (sha256 {motion.bcd_sha256[:12]}…)",
                hint="pass the BCD weights that it was trained on",
            )
        return BCD.from_pretrained(name, device)
    bcd = BCD.from_pretrained(weights, device)
    actual = bcd.loaded.codes_sha256
    if actual != motion.bcd_sha256:
        raise UsageError(
            f"{Path(weights).name}: the motion model belongs to other BCD weights (sha256 {motion.bcd_sha256[:12]}…, "
            f"not {actual[:12]}…)",
            hint="train one for these weights: bcd-bench train bcd-motion --set bcd=PATH",
        )
    return bcd


@dataclass
class Prompt:
    """What is known of B clips: content tokens [B, K, C_c] and the codes int64 [B, k, N] of their first k frames, and
    these frames, uint8 [B, k, H, W, 3], if the weights show their pixels."""

    content: Tensor
    codes: Tensor
    frames: npt.NDArray[np.uint8] | None = None

    @property
    def alone(self) -> bool:
        """Whether the prompt is a single frame."""
        return int(self.codes.shape[1]) == 1


class MotionGenerator:
    """Continues clips of k frames: `prompt`, then `codes`, then `frames`."""

    def __init__(self, bcd: BCD, motion: LoadedMotionModel, sampling: SamplingConfig | None = None) -> None:
        """Raises `UsageError` if `sampling` does not fit the codebook, or the motion model's prompt encoder the BCD
        weights."""
        self.bcd, self.motion = bcd, motion
        try:
            self.prompts = prompt_pipeline(bcd, motion.prompt_encoder)
        except ValueError as error:
            raise UsageError(f"the motion model does not fit the BCD weights: {error}") from None
        self.sampling = sampling or SamplingConfig()
        self.sampling.check(motion.model.config.codes.entries)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width in pixels of the clips, as those of the method `bcd`."""
        return shown_size(self.bcd.model)

    def accepts(self, frames: npt.NDArray[np.uint8]) -> bool:
        """Whether the weights accept the size of a clip uint8 [T, H, W, 3]."""
        return fits(frames, self.bcd.description)

    @torch.inference_mode()
    def prompt(self, frames: Any) -> Prompt:
        """Encode the first frames of clips, uint8 [B, k, H, W, 3], of a clip, or a single frame.

        Raises `ValueError` for a size that the weights do not accept.
        """
        shown = np.asarray(frames)
        while shown.ndim < 5:
            shown = shown[None]
        values = self._values(shown)
        carried = shown if carries_pixels(self.bcd.model) else None
        return Prompt(self.prompts.encode_content(values), self.prompts.encode_motion(values).codes, carried)

    def real_codes(self, clips: npt.NDArray[np.uint8]) -> Tensor:
        """Codes int64 [B, T, N] of whole clips uint8 [B, T, H, W, 3]."""
        with torch.inference_mode():
            return self.bcd.pipeline.encode_motion(self._values(clips)).codes

    def _values(self, clips: npt.NDArray[np.uint8]) -> Tensor:
        if self.accepts(clips[0]):
            clips = np.stack([resized(clip, self.bcd.frame_size) for clip in clips])
        return self.bcd.values(clips)

    def codes(self, prompt: Prompt, frames: int, seeds: Sequence[int], **named: Any) -> Tensor:
        """Codes int64 [B, frames, N] that continue the prompts; `named` are those of `generate_codes`."""
        named.setdefault("alone", prompt.alone)
        return generate_codes(self.motion.model, prompt.content, prompt.codes, frames, self.sampling, seeds, **named)

    @torch.inference_mode()
    def frames(
        self,
        prompt: Prompt,
        codes: Tensor,
        seeds: Sequence[int],
        *,
        first: int = 0,
        sampler: SamplerConfig | None = None,
    ) -> Tensor:
        """Decode codes int [B, T, N] to frames uint8 [B, T, H, W, 3], of the prompt's size if its pixels are shown.

        Every frame has its own noise, by its number: `first` is that of the first one, so that parts of a long clip
        can be decoded separately.
        """
        model = self.bcd.model
        motion = self.bcd.pipeline.motion_of(codes)
        shape = model.noise_shape(1)
        noise = torch.stack(
            [torch.cat([_noise(shape, seed, first + frame) for frame in range(codes.shape[1])]) for seed in seeds]
        )
        sampler = sampler or self.bcd.description.sampler
        pipeline = self.bcd.pipeline
        drawn = self.bcd.codec.frames(pipeline.sample(prompt.content, motion, sampler, noise.to(motion.device)))
        if prompt.frames is None:
            return drawn
        parts = zip(prompt.frames, prompt.content, motion, drawn.cpu().numpy(), strict=True)
        shown = [carry_pixels(pipeline, clip, self._values(clip[None]), *rest) for clip, *rest in parts]
        return torch.from_numpy(np.stack(shown))


def _noise(shape: tuple[int, ...], seed: int, frame: int) -> Tensor:
    return torch.randn(shape, generator=frame_generator(seed, frame, "noise"))
