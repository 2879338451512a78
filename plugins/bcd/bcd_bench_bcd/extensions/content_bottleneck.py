"""Content as few Gaussian channels whose information is penalised: a variational information bottleneck.

Both halves of a training clip show the same action, so nothing in the paper's loss keeps content from encoding it, and
a decoder that reads the action from content ignores the driving clip of a swap. The KL divergence to a unit normal is
the rate of the content (Alemi et al. 2017): information that the motion code carries anyway is not worth its penalty in
the content. The penalty starts late (before content is used, any penalty suppresses it for good) and falls once motion
has left content. When weights are saved, the content gets a grid of one standard deviation of each channel's noise, and
inference rounds to it: digits below the noise that the decoder was trained with cost nothing, yet a linear probe can
read motion from them.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extension, Recipe, Schedule, StepState, constant
from bcd_bench_bcd.paper.rng import RngLike, as_rng

__all__ = ["Bottleneck", "ContentBottleneck"]

GRID = 1.0
"""Step of the grid in standard deviations of the channel's noise: the rounding error is 1/12 of the noise power."""


class ContentBottleneck(Extension):
    name: ClassVar[str] = "content_bottleneck"
    summary: ClassVar[str] = "content tokens as few Gaussian channels with a KL penalty, rounded at inference"
    logged: ClassVar[tuple[str, ...]] = ("content_bits",)
    changes_model: ClassVar[bool] = True
    training_only: ClassVar[frozenset[str]] = frozenset({"kl_weight"})

    dim: int = Field(default=8, ge=1)
    """Channels per content token."""
    kl_weight: Schedule = constant(1e-5)
    """Content KL weight, per nat."""

    def check(self, preset: Recipe) -> None:
        if "canonical_features" in preset.extensions.names:
            raise ValueError("content_bottleneck and canonical_features are mutually exclusive")

    def after_encoder(self, state: StepState) -> None:
        bottleneck = state.model.bottleneck
        assert bottleneck is not None
        state.content, nats = bottleneck.sample(state.tokens, state.rng)
        state.total = state.total + self.kl_weight.at(state.step) * nats
        state.terms["content_bits"] = nats / math.log(2)


class Bottleneck(nn.Module):
    """Mean and variance per channel of every content token, and the grid that content is rounded to."""

    center: Tensor
    step: Tensor

    def __init__(self, tokens: int, width: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 2 * dim)
        nn.init.zeros_(self.head.weight[dim:])
        nn.init.constant_(self.head.bias[dim:], -4.0)  # nearly noiseless at first, so that content is learned first
        self.register_buffer("center", torch.zeros(tokens, dim))
        self.register_buffer("step", torch.zeros(tokens, dim))

    def mean(self, tokens: Tensor) -> Tensor:
        """[B, K, width] -> float32 [B, K, dim]."""
        return self.gaussian(tokens)[0]

    def rounded(self, mean: Tensor) -> Tensor:
        """Means [B, K, dim] rounded to the grid set by `calibrate`; unchanged before that. Channels without information
        round to their center."""
        levels = ((mean - self.center) / self.step.clamp_min(1e-12)).round()
        return torch.where(self.step > 0, self.center + self.step * levels, mean)

    @torch.no_grad()
    def calibrate(self, tokens: Tensor) -> None:
        """Set the grid from the content of many clips, [B, K, width]."""
        mean, log_variance = self.gaussian(tokens)
        self.center.copy_(mean.mean(0))
        self.step.copy_(GRID * (0.5 * log_variance).exp().mean(0))

    def gaussian(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the channels, float32 [B, K, dim] each."""
        mean, log_variance = self.head(tokens).float().chunk(2, -1)
        return mean, log_variance.clamp(-10, 4)

    def sample(self, tokens: Tensor, rng: RngLike) -> tuple[Tensor, Tensor]:
        """A sample [B, K, dim] and its rate: the KL divergence to the unit normal in nats (0-dim), averaged over
        clips."""
        mean, log_variance = self.gaussian(tokens)
        noise = as_rng(rng).normal(*mean.shape, device=mean.device).to(mean)
        nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2)).mean()
        return mean + (0.5 * log_variance).exp() * noise, nats
