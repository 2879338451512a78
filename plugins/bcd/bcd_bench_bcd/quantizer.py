"""The bitrate-controlled bottleneck: group VQ with a distance-Gumbel-softmax (Sec. 3.2, eqs. 1-5 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bcd_bench_bcd.configs import QuantizerConfig
from bcd_bench_bcd.randomness import Source, as_draws

__all__ = ["GroupVectorQuantizer", "Quantized", "rate_loss"]

ALPHA_DIM = 16
"""Channels of the codes (Table A7) for which alpha = 5 was chosen."""
USAGE_MEMORY = 0.02
"""Weight of the newest batch in the running share of an entry: about 50 batches are remembered."""
DEAD_SHARE = 0.1
"""An entry with less than this part of a fair share is hardly used."""
REVIVED_AT_ONCE = 4


@dataclass
class Quantized:
    """What quantising motion latents gives. N groups, J entries, B clips of T frames."""

    motion: Tensor
    """m-hat [B, T, N*D], differentiable (straight-through)."""
    codes: Tensor
    """Index of the nearest entry, int64 [B, T, N]."""
    sampled: Tensor
    """Index of the entry that `motion` holds, int64 [B, T, N]: drawn in training, the nearest otherwise."""
    group_bits: Tensor
    """H^i [N]: entropy of the batch-mean assignment of each group, in bits (eq. 5)."""
    conditional_bits: Tensor
    """H(code | frame), summed over groups and averaged over frames, in bits: how undecided the assignment is."""

    @property
    def bits(self) -> Tensor:
        """H_model in bits per frame, over all groups (eq. 5)."""
        return self.group_bits.sum()


def rate_loss(group_bits: Tensor, target_bits: float, form: Literal["per-group", "total"]) -> Tensor:
    """L_VQ (eq. 8): squared distance of the entropy from the target, per group (averaged) or on the total."""
    if form == "total":
        return (group_bits.sum() - target_bits) ** 2
    return ((group_bits - target_bits / len(group_bits)) ** 2).mean()


def _distances(parts: Tensor, entries: Tensor) -> Tensor:
    """L2 distances [.., B*T, J] by differences: the product form is too coarse between close entries."""
    return torch.cdist(parts, entries, compute_mode="donot_use_mm_for_euclid_dist")


class GroupVectorQuantizer(nn.Module):
    """N codebooks of J entries with D channels each.

    d_t^i = distances of the i-th part of a motion latent to the codebook's entries (1). Training samples one entry
    from softmax(-alpha d / tau) by the Gumbel trick, hard with a straight-through gradient (2); inference takes the
    nearest. The rate is the entropy of the mean of softmax(-alpha d) over clips and frames (4, 5), without
    temperature or noise, in float32.
    """

    def __init__(self, config: QuantizerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        total = config.groups * config.dim
        identity = total == width
        self.into = nn.Identity() if identity else nn.Linear(width, total, bias=False)
        self.out_width = total
        self.codebook = nn.Parameter(torch.empty(config.groups, config.entries, config.dim).uniform_(-1, 1))
        self.register_buffer("running_mean", torch.zeros(total))
        self.register_buffer("running_std", torch.ones(total))
        self.register_buffer("usage", torch.full((config.groups, config.entries), 1 / config.entries))

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of motion latents [B, T, C] over clips and frames."""
        flat = latents.flatten(0, 1)
        return flat.mean(0), (flat.var(0) + 1e-4).sqrt()

    def _standardize(self, latents: Tensor) -> Tensor:
        if self.config.normalize == "none":
            return latents
        if not self.training:
            return (latents - self.running_mean) / self.running_std
        mean, std = self._statistics(latents)
        with torch.no_grad():
            self.running_mean.lerp_(mean, 0.03)
            self.running_std.lerp_(std, 0.03)
        return (latents - mean) / std

    def _parts(self, latents: Tensor) -> Tensor:
        """Standardised latents [B, T, C] cut into what each codebook sees, [N, B*T, D]."""
        return latents.flatten(0, 1).reshape(-1, self.config.groups, self.config.dim).transpose(0, 1)

    @torch.no_grad()
    def start_codes_from(self, latents: Tensor, generator: torch.Generator) -> None:
        """Place the entries on given motion latents [B, T, width], slightly jittered; B*T must be at least J."""
        flat = self.into(latents.float()).flatten(0, 1)
        self.running_mean.copy_(flat.mean(0))
        self.running_std.copy_(flat.std(0) + 1e-3)
        if self.config.normalize == "batch":
            flat = (flat - self.running_mean) / self.running_std
        chosen = flat[torch.randperm(len(flat), generator=generator)[: self.config.entries]]
        entries = chosen.view(-1, self.config.groups, self.config.dim).transpose(0, 1)
        jitter = torch.randn(entries.shape, generator=generator).to(entries)
        self.codebook.copy_(entries + 0.02 * jitter)

    @torch.no_grad()
    def revive(self, latents: Tensor, generator: torch.Generator) -> int:
        """Move entries that are hardly used onto motion latents [B, T, width] that lie far from all entries.

        Latents are drawn with a chance in proportion to their squared distance (as k-means++ does): an entry that
        stands for several poses lies far from each of them, so it is what gets split. At most `REVIVED_AT_ONCE`
        entries a group; returns how many moved.
        """
        config, moved = self.config, 0
        latents = self.into(latents.float())
        if config.normalize == "batch":  # as a training step sees them, but without counting them twice
            mean, std = self._statistics(latents)
            latents = (latents - mean) / std
        parts = self._parts(latents)
        for group, usage in enumerate(self.usage):
            dead = (usage < DEAD_SHARE / config.entries).nonzero().flatten()[:REVIVED_AT_ONCE]
            distance = _distances(parts[group], self.codebook[group])
            chances = distance.amin(1).square().cpu()
            count = min(len(dead), int((chances > 0).sum()))
            if count:
                chosen = torch.multinomial(chances, count, generator=generator).to(parts.device)
                self.codebook[group, dead[:count]] = parts[group, chosen]
                usage[dead[:count]] = 1 / config.entries
                moved += count
        return moved

    def code_nats(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Cross-entropy of softmax(-d) against given codes, in nats (0-dim): how far latents [B, T, width] are from
        the codes int64 [B, T, N] they should get. Uses the running statistics and teaches the latents, not the codes.
        """
        config = self.config
        with torch.autocast(latents.device.type, enabled=False):
            parts = self.into(latents.float())
            if config.normalize == "batch":
                parts = (parts - self.running_mean) / self.running_std
            distance = _distances(self._parts(parts), self.codebook.detach())  # [N, B*T, J]
            wanted = codes.flatten(0, 1).T  # [N, B*T]
            return nn.functional.cross_entropy(-distance.flatten(0, 1), wanted.flatten())

    def histogram(self, latents: Tensor) -> Tensor:
        """Mean of softmax(-alpha d) over motion latents [B, T, width], float32 [N, J]: what the rate is made of."""
        with torch.autocast(latents.device.type, enabled=False):
            parts = self._parts(self._standardize(self.into(latents.float())))
            return self._logits(parts).softmax(-1).mean(1)

    def _logits(self, parts: Tensor) -> Tensor:
        distance = _distances(parts, self.codebook)
        if self.config.distance != "l2":
            distance = distance.square()
        if self.config.distance == "scaled":
            distance = distance * (ALPHA_DIM / self.config.dim)
        return -self.config.alpha * distance  # [N, B*T, J]

    def forward(
        self,
        latents: Tensor,
        tau: float = 1.0,
        draws: Source = None,
        histogram: Tensor | None = None,
        *,
        free: bool = False,
    ) -> Quantized:
        """`latents` [B, T, width] -> `Quantized`. `tau` and `draws` matter in training only.

        `histogram` [N, J] is that of a larger batch of which these clips are an equal part: the rate is then the
        larger batch's. Its gradient with regard to these clips is exact, once gradients are averaged over all parts.
        With `free`, `motion` holds the standardised latents themselves; the codes are only said.
        """
        config, (batch, frames) = self.config, latents.shape[:2]
        with torch.autocast(latents.device.type, enabled=False):
            parts = self._parts(self._standardize(self.into(latents.float())))
            logits = self._logits(parts)
            probabilities = logits.softmax(-1)
            mean = probabilities.mean(1)
            if histogram is not None:
                mean = histogram + mean - mean.detach()
            group_bits = -(mean * (mean + 1e-9).log2()).sum(-1)
            conditional = -(probabilities * (probabilities + 1e-9).log2()).sum(-1).mean(1).sum()
            codes = logits.argmax(-1)
            if self.training:
                self._count(codes)
                assignment = self._sample(logits, tau, draws, batch)
            else:
                assignment = nn.functional.one_hot(codes, config.entries).float()
            sampled = assignment.detach().argmax(-1)
            chosen = assignment @ self.codebook
            if self.training and config.straight_through == "latent":
                chosen = chosen + (parts - parts.detach())
            if free:
                chosen = parts
            motion = chosen.transpose(0, 1).reshape(batch, frames, self.out_width)
        codes, sampled = (index.T.reshape(batch, frames, config.groups) for index in (codes, sampled))
        return Quantized(motion, codes, sampled, group_bits, conditional)

    @torch.no_grad()
    def _count(self, codes: Tensor) -> None:
        """Keep the running share of every entry; `codes` [N, B*T]."""
        share = nn.functional.one_hot(codes, self.config.entries).float().mean(1)
        self.usage.lerp_(share, USAGE_MEMORY)

    @staticmethod
    def _sample(logits: Tensor, tau: float, draws: Source, batch: int) -> Tensor:
        """Hard Gumbel-softmax: a one-hot sample forward, the relaxed sample's gradient backward (eq. 2)."""
        uniform = as_draws(draws).by_frame(logits.shape, batch, logits.device).to(logits).clamp_(1e-9, 1 - 1e-7)
        soft = ((logits - (-uniform.log()).log()) / tau).softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard - soft.detach() + soft

    def lookup(self, codes: Tensor) -> Tensor:
        """Code indices int [B, T, N] -> m-hat [B, T, N*D]."""
        parts = [self.codebook[group][codes[..., group]] for group in range(self.config.groups)]
        return torch.cat(parts, -1)
