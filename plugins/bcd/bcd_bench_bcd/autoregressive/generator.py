"""Prompt in, generated clip out: BCD's encoder, the motion model, and BCD's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.autoregressive.prompt_encoder import prompt_pipeline
from bcd_bench_bcd.autoregressive.sampling import SamplingConfig, frame_generator, generate_codes
from bcd_bench_bcd.autoregressive.weights import LoadedMotionModel
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.pretrained import SHIPPED
from bcd_bench_bcd.paper.config import SamplerConfig

__all__ = ["MotionGenerator", "Prompt", "bcd_of"]


def bcd_of(motion: LoadedMotionModel, weights: str | Path | None = None, device: str = "cpu") -> BCD:
    """The BCD model that a motion model belongs to: shipped weights by their hash, or the file `weights`.

    Raises `UsageError` if the weights are not shipped and not given, or are other ones.
    """
    if weights is None:
        name = next((w.name for w in SHIPPED if w.sha256 == motion.bcd_sha256), None)
        if name is None:
            raise UsageError(
                f"the motion model belongs to BCD weights that are not shipped (sha256 {motion.bcd_sha256[:12]}…)",
                hint="pass the BCD weights that it was trained on",
            )
        return BCD.from_pretrained(name, device)
    bcd = BCD.from_pretrained(weights, device)
    actual = bcd.loaded.sha256
    if actual != motion.bcd_sha256:
        raise UsageError(
            f"{Path(weights).name}: the motion model belongs to other BCD weights (sha256 {motion.bcd_sha256[:12]}…, "
            f"not {actual[:12]}…)",
            hint="train one for these weights: bcd-bench train bcd-motion --set bcd=PATH",
        )
    return bcd


@dataclass
class Prompt:
    """What is known of B clips: content tokens [B, K, C_c] and the codes int64 [B, k, N] of their first k frames."""

    content: Tensor
    codes: Tensor

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

    @torch.inference_mode()
    def prompt(self, frames: Any) -> Prompt:
        """Encode the first frames of clips, uint8 [B, k, H, W, 3], of a clip, or a single frame."""
        values = self.bcd.values(frames)
        return Prompt(self.prompts.encode_content(values), self.prompts.encode_motion(values).codes)

    def codes(self, prompt: Prompt, frames: int, seeds: Sequence[int], **named: Any) -> Tensor:
        """Codes int64 [B, frames, N] that continue the prompts; `named` are those of `generate_codes`."""
        named.setdefault("alone", prompt.alone)
        return generate_codes(self.motion.model, prompt.content, prompt.codes, frames, self.sampling, seeds, **named)

    @torch.inference_mode()
    def frames(
        self,
        content: Tensor,
        codes: Tensor,
        seeds: Sequence[int],
        *,
        first: int = 0,
        sampler: SamplerConfig | None = None,
    ) -> Tensor:
        """Decode codes int [B, T, N] to frames uint8 [B, T, H, W, 3].

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
        return self.bcd.codec.frames(self.bcd.pipeline.sample(content, motion, sampler, noise.to(motion.device)))


def _noise(shape: tuple[int, ...], seed: int, frame: int) -> Tensor:
    return torch.randn(shape, generator=frame_generator(seed, frame, "noise"))
