"""The paper's quantiser with the hooks that `standardized_latents`, `latent_gradient` and `vq_start` need."""

from __future__ import annotations

import torch
from torch import Tensor

from bcd_bench_bcd.paper.config import QuantizerConfig
from bcd_bench_bcd.paper.quantizer import GroupVectorQuantizer, Quantized
from bcd_bench_bcd.paper.rng import RngLike

__all__ = ["ExtendedQuantizer"]

USAGE_MEMORY = 0.02
"""Weight of the newest batch in the running frequency of an entry: an average over about 50 batches."""
STATISTICS_MEMORY = 0.03
"""Weight of the newest batch in the running statistics."""


class ExtendedQuantizer(GroupVectorQuantizer):
    """Group VQ with running statistics of the motion latents and running frequencies of the entries."""

    running_mean: Tensor
    running_std: Tensor
    usage: Tensor

    def __init__(self, config: QuantizerConfig, width: int, *, standardize: bool, latent_gradient: bool) -> None:
        super().__init__(config, width)
        self.standardize, self.latent_gradient = standardize, latent_gradient
        self.bypass = False
        """If true, the motion is the standardised latents themselves; codes are computed but not used."""
        self.register_buffer("running_mean", torch.zeros(self.out_width))
        self.register_buffer("running_std", torch.ones(self.out_width))
        self.register_buffer("usage", torch.full((config.groups, config.entries), 1 / config.entries))

    @staticmethod
    def statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of latents [B, T, C] over clips and frames."""
        flat = latents.flatten(0, 1)
        return flat.mean(0), (flat.var(0) + 1e-4).sqrt()

    def project(self, latents: Tensor) -> Tensor:
        latents = super().project(latents)
        if not self.standardize:
            return latents
        if not self.training:
            return self.standardized_by_running(latents)
        mean, std = self.statistics(latents)
        with torch.no_grad():
            self.running_mean.lerp_(mean, STATISTICS_MEMORY)
            self.running_std.lerp_(std, STATISTICS_MEMORY)
        return (latents - mean) / std

    def standardized_by_running(self, latents: Tensor) -> Tensor:
        """Projected latents, standardised by the running statistics if the quantiser standardises."""
        return (latents - self.running_mean) / self.running_std if self.standardize else latents

    def standardized_by_batch(self, latents: Tensor) -> Tensor:
        """Projected latents as in a training step, without updating the running statistics."""
        if not self.standardize:
            return latents
        mean, std = self.statistics(latents)
        return (latents - mean) / std

    def embed(self, assignment: Tensor, parts: Tensor) -> Tensor:
        if self.bypass:
            return parts
        embedded = super().embed(assignment, parts)
        if self.training and self.latent_gradient:
            embedded = embedded + (parts - parts.detach())
        return embedded

    def forward(
        self, latents: Tensor, tau: float = 1.0, rng: RngLike = None, histogram: Tensor | None = None
    ) -> Quantized:
        quantized = super().forward(latents, tau, rng, histogram)
        if self.training:
            with torch.no_grad():
                frequencies = torch.nn.functional.one_hot(quantized.codes, self.config.entries).float().mean((0, 1))
                self.usage.lerp_(frequencies, USAGE_MEMORY)
        return quantized

    def start_latents(self, flat: Tensor) -> Tensor:
        self.running_mean.copy_(flat.mean(0))
        self.running_std.copy_(flat.std(0) + 1e-3)
        return (flat - self.running_mean) / self.running_std if self.standardize else flat
