"""The bitrate-controlled bottleneck: group VQ with a distance-Gumbel-softmax (Sec. 3.2, eqs. 1-5 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bcd_bench_bcd.paper.config import QuantizerConfig
from bcd_bench_bcd.paper.rng import RngLike, as_rng

__all__ = ["GroupVectorQuantizer", "Quantized", "rate_loss"]

ALPHA_DIM = 16
"""Entry channels (those of Table A7) for which alpha = 5 is intended."""


@dataclass
class Quantized:
    """Quantised motion of B clips of T frames, with N groups of J entries."""

    motion: Tensor
    """m-hat [B, T, N * D], differentiable (straight-through)."""
    codes: Tensor
    """Index of the nearest entry, int64 [B, T, N]."""
    sampled: Tensor
    """Index of the entry in `motion`, int64 [B, T, N]: sampled in training, the nearest one otherwise."""
    group_bits: Tensor
    """H^i [N]: entropy of the batch-mean assignment per group, in bits (eq. 5)."""
    conditional_bits: Tensor
    """Assignment entropy H(code | frame) in bits (0-dim), summed over groups, averaged over frames."""

    @property
    def bits(self) -> Tensor:
        """H_model in bits per frame, over all groups (eq. 5)."""
        return self.group_bits.sum()


def rate_loss(group_bits: Tensor, target_bits: float, form: Literal["per-group", "total"]) -> Tensor:
    """L_VQ (eq. 8): squared difference between entropy and target, per group (averaged) or on the total."""
    if form == "total":
        return (group_bits.sum() - target_bits) ** 2
    return ((group_bits - target_bits / len(group_bits)) ** 2).mean()


class GroupVectorQuantizer(nn.Module):
    """N codebooks E^i of J entries e_j^i with D channels each."""

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.out_width = config.groups * config.dim
        self.into = nn.Identity() if self.out_width == width else nn.Linear(width, self.out_width, bias=False)
        self.codebook = nn.Parameter(torch.empty(config.groups, config.entries, config.dim).uniform_(-1, 1))

    def project(self, latents: Tensor) -> Tensor:
        """Motion latents m [B, T, width] -> float32 [B, T, N * D]."""
        return self.into(latents.float())

    def split(self, latents: Tensor) -> Tensor:
        """Projected latents [B, T, N * D] -> the inputs m^i of the codebooks, [N, B * T, D]."""
        return latents.flatten(0, 1).reshape(-1, self.config.groups, self.config.dim).transpose(0, 1)

    def logits(self, parts: Tensor) -> Tensor:
        """-alpha d_t^i [N, B * T, J] of the parts m^i [N, B * T, D] (1)."""
        # by differences: the product form is not accurate enough for entries that are close to each other
        distance = torch.cdist(parts, self.codebook, compute_mode="donot_use_mm_for_euclid_dist")
        if self.config.distance != "l2":
            distance = distance.square()
        if self.config.distance == "scaled":
            distance = distance * (ALPHA_DIM / self.config.dim)
        return -self.config.alpha * distance

    def forward(
        self, latents: Tensor, tau: float = 1.0, rng: RngLike = None, histogram: Tensor | None = None
    ) -> Quantized:
        """Motion latents m [B, T, width] -> `Quantized`. `tau` and `rng` are used in training only.

        If these clips are an equal part of a larger batch, `histogram` [N, J] is that of the larger batch: the rate is
        then the larger batch's, and its gradient with regard to these clips is exact once gradients are averaged over
        the parts.
        """
        config, (batch, frames) = self.config, latents.shape[:2]
        with torch.autocast(latents.device.type, enabled=False):
            parts = self.split(self.project(latents))
            logits = self.logits(parts)
            probabilities = logits.softmax(-1)  # without noise and without temperature
            mean = probabilities.mean(1)  # P(e_j^i) (4)
            if histogram is not None:
                mean = histogram + mean - mean.detach()
            group_bits = -(mean * (mean + 1e-9).log2()).sum(-1)  # (3), (5)
            conditional = -(probabilities * (probabilities + 1e-9).log2()).sum(-1).mean(1).sum()
            codes = logits.argmax(-1)
            if self.training:
                assignment = self._sample(logits, tau, rng, batch)
            else:
                assignment = nn.functional.one_hot(codes, config.entries).float()
            sampled = assignment.detach().argmax(-1)
            motion = self.embed(assignment, parts).transpose(0, 1).reshape(batch, frames, self.out_width)
        codes, sampled = (index.T.reshape(batch, frames, config.groups) for index in (codes, sampled))
        return Quantized(motion, codes, sampled, group_bits, conditional)

    def embed(self, assignment: Tensor, parts: Tensor) -> Tensor:
        """m-hat^i [N, B * T, D] from the assignment [N, B * T, J] (2) of the parts m^i."""
        del parts
        return assignment @ self.codebook

    @staticmethod
    def _sample(logits: Tensor, tau: float, rng: RngLike, batch: int) -> Tensor:
        """Hard Gumbel-softmax: a one-hot sample forward, the relaxed sample's gradient backward (2)."""
        uniform = as_rng(rng).uniform_by_frame(logits.shape, batch, logits.device).to(logits).clamp_(1e-9, 1 - 1e-7)
        soft = ((logits - (-uniform.log()).log()) / tau).softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard - soft.detach() + soft

    def histogram(self, latents: Tensor) -> Tensor:
        """P(e_j^i) [N, J] of motion latents [B, T, width] (4), from which the rate is computed."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.logits(self.split(self.project(latents))).softmax(-1).mean(1)

    @torch.no_grad()
    def start_codes_from(self, latents: Tensor, generator: torch.Generator) -> None:
        """Initialise the entries with motion latents [B, T, width], slightly jittered; B * T must be at least J."""
        flat = self.start_latents(self.into(latents.float()).flatten(0, 1))
        samples = flat[torch.randperm(len(flat), generator=generator)[: self.config.entries]]
        entries = samples.view(-1, self.config.groups, self.config.dim).transpose(0, 1)
        jitter = torch.randn(entries.shape, generator=generator).to(entries)
        self.codebook.copy_(entries + 0.02 * jitter)

    def start_latents(self, flat: Tensor) -> Tensor:
        """Projected latents [B * T, N * D] as seen by the codebook."""
        return flat
