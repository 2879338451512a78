"""Dead-code restart: codebook entries that are hardly used move to latents that are far from all entries.

Restarting unused entries is common practice for VQ (e.g. Jukebox, Dhariwal et al. 2020); choosing the latents with a
probability proportional to their squared distance is k-means++ (Arthur and Vassilvitskii 2007): an entry shared by
several poses is far from each of them, so it is the one that is split. Before the swap cycle has aligned the latents of
a pose across subjects, latents far from all entries differ in the subject, and restarted entries would encode it: so
restarts begin late.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, StepState
from bcd_bench_bcd.extensions.quantizer import ExtendedQuantizer

__all__ = ["DeadCodeRestart", "restart_dead_codes"]

DEAD = 0.1
"""An entry is dead if its frequency is below this fraction of the mean."""
AT_ONCE = 4
"""Maximum number of entries restarted at once, per group."""


class DeadCodeRestart(Extension):
    name: ClassVar[str] = "dead_code_restart"
    summary: ClassVar[str] = "hardly used codebook entries are restarted"
    needs_whole_batch: ClassVar[bool] = True

    every: int = Field(default=50, ge=1)
    """Steps between restarts."""
    start: int = Field(default=0, ge=0)
    """First step with restarts."""
    stop: int | None = Field(default=None, ge=1)
    """First step without restarts again (None: they continue to the end)."""

    def before_quantizer(self, state: StepState) -> None:
        due = self.start <= state.step and (self.stop is None or state.step < self.stop)
        if due and state.step % self.every == 0:
            generator = state.rng.generator
            assert generator is not None
            restart_dead_codes(state.model.quantizer, state.latents.detach(), generator)


@torch.no_grad()
def restart_dead_codes(quantizer: ExtendedQuantizer, latents: Tensor, generator: torch.Generator) -> int:
    """Move dead entries to motion latents [B, T, width] far from all entries; returns the number of entries moved."""
    parts = quantizer.split(quantizer.standardized_by_batch(quantizer.into(latents.float())))
    moved = 0
    for group, usage in enumerate(quantizer.usage):
        dead = (usage < DEAD / quantizer.config.entries).nonzero().flatten()[:AT_ONCE]
        distance = torch.cdist(parts[group], quantizer.codebook[group], compute_mode="donot_use_mm_for_euclid_dist")
        chances = distance.amin(1).square().cpu()
        count = min(len(dead), int((chances > 0).sum()))
        if count:
            indices = torch.multinomial(chances, count, generator=generator).to(parts.device)
            quantizer.codebook[group, dead[:count]] = parts[group, indices]
            usage[dead[:count]] = 1 / quantizer.config.entries
            moved += count
    return moved
