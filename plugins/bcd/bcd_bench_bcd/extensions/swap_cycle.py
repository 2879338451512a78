"""A swap cycle: some driving halves are generated with another clip's content, and the result is encoded again.

It must be encoded to the codes it was generated from (cross-entropy in nats) and the content it was generated with (in
nats of the bottleneck's noise). The swaps come from one evaluation at a high noise level and carry no gradient: only
the encoder learns, from exact swaps without labels, that a code must not depend on the subject, nor content on the
motion. Cycle consistency of swaps is known from image translation (e.g. MUNIT, Huang et al. 2018).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extension, Recipe, StepState
from bcd_bench_bcd.extensions.quantizer import ExtendedQuantizer

__all__ = ["SwapCycle", "code_nats", "swap_cycle"]

SIGMA = 20.0
"""Noise level from which swaps are generated: far above the data, so that only content and motion determine them."""
SHARE = 0.25
"""Fraction of the driving halves that are swapped in a step."""


class SwapCycle(Extension):
    name: ClassVar[str] = "swap_cycle"
    summary: ClassVar[str] = "generated swaps must be encoded to the codes and content they came from"
    logged: ClassVar[tuple[str, ...]] = ("swap_cycle_codes", "swap_cycle_content")
    needs_whole_batch: ClassVar[bool] = True

    weight: float = Field(default=0.01, ge=0)
    """Weight of the cross-entropy of the codes, per nat."""
    content_weight: float = Field(default=0.0, ge=0)
    """Weight of the content error, per nat of the bottleneck's noise; requires content_bottleneck."""
    start: int = Field(default=0, ge=0)
    """First step with the cycle: before it, generated swaps are not informative."""

    def check(self, preset: Recipe) -> None:
        if self.content_weight and "content_bottleneck" not in preset.extensions.names:
            raise ValueError("swap_cycle.content_weight requires content_bottleneck")
        if "canonical_features" in preset.extensions.names:
            raise ValueError("swap_cycle and canonical_features are mutually exclusive")

    def after_decoder(self, state: StepState) -> None:
        if state.step < self.start:
            return
        count = max(1, round(SHARE * state.batch))
        indices = torch.randperm(state.batch, generator=state.rng.generator)[:count]
        codes, content = swap_cycle(state, indices)
        state.add("swap_cycle_codes", codes, self.weight)
        if state.model.bottleneck is not None:
            state.add("swap_cycle_content", content, self.content_weight)


def code_nats(quantizer: ExtendedQuantizer, latents: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of softmax(-d), d the L2 distance of motion latents [B, T, width] to the entries, against the
    target codes int64 [B, T, N], in nats (0-dim). It uses the running statistics, and its gradient reaches the latents,
    not the codebook.
    """
    with torch.autocast(latents.device.type, enabled=False):
        parts = quantizer.split(quantizer.standardized_by_running(quantizer.into(latents.float())))
        distance = torch.cdist(parts, quantizer.codebook.detach(), compute_mode="donot_use_mm_for_euclid_dist")
        targets = codes.flatten(0, 1).T  # [N, B * T]
        return nn.functional.cross_entropy(-distance.flatten(0, 1), targets.flatten())


def swap_cycle(state: StepState, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Generate the `chosen` driving halves with the content of another clip and encode the result.

    Returns the cross-entropy of the codes they were generated from, and the distance of the content to the one they
    were generated with (0 without a bottleneck), both in nats.
    """
    model, quantized = state.model, state.quantized
    with torch.no_grad():
        motion = quantized.motion[chosen]
        shape = (len(chosen), *model.noise_shape(motion.shape[1]))
        noise = state.rng.shared.normal(*shape, device=motion.device).to(motion)
        sigma = motion.new_full((len(chosen),), SIGMA)
        generated = model.denoise(SIGMA * noise, sigma, state.content.roll(1, 0)[chosen], motion)
        generated = generated if model.config.latent is not None else generated.clamp(-1, 1)
        values = model.decoder.unpatchify(generated)
    tokens, latents = model.encode(values, canonical=False)
    codes = code_nats(model.quantizer, latents, quantized.sampled[chosen])
    if model.bottleneck is None:
        return codes, codes.new_zeros(())
    mean = model.bottleneck.mean(tokens)
    with torch.no_grad():
        target, log_variance = (part.roll(1, 0)[chosen] for part in model.bottleneck.gaussian(state.tokens))
    return codes, 0.5 * ((mean - target).square() * (-log_variance).exp()).sum((1, 2)).mean()
