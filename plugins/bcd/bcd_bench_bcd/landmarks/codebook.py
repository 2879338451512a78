"""Codebooks that follow the latents: every entry is the running mean of those for which it is the nearest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bcd_bench_bcd.landmarks.config import LandmarkTrainConfig
from bcd_bench_bcd.paper.config import QuantizerConfig
from bcd_bench_bcd.paper.quantizer import GroupVectorQuantizer

__all__ = ["RunningCodebook"]

START_COUNT = 8.0
"""Weight of the initial entries in the running means."""
RESTART_EVERY = 20
"""Steps between restarts of rare entries."""
RARE, RESTART_COUNT = 0.03, 0.3
"""Usage below which an entry restarts, and with which it does, relative to the mean of its group."""
SETTLED = 0.3
"""Last fraction of the quantised steps in which no entry restarts."""


class RunningCodebook:
    """The quantiser of a run whose entries are running means (van den Oord et al. 2017, appendix A.1)."""

    def __init__(self, config: QuantizerConfig, device: torch.device) -> None:
        self.quantizer = GroupVectorQuantizer(config, config.groups * config.dim).to(device).eval()
        self.counts = torch.full((config.groups, config.entries), START_COUNT, device=device)
        self.sums = self.quantizer.codebook.detach() * START_COUNT

    def start(self, latents: Tensor, generator: torch.Generator) -> None:
        """Begin with the means of clusters of latents [N, groups * dim]."""
        parts = self.quantizer.split(latents[None])
        books = [k_means(part, self.quantizer.config.entries, generator) for part in parts]
        self.quantizer.codebook.data.copy_(torch.stack(books))
        self.counts.fill_(START_COUNT)
        self.sums = self.quantizer.codebook.detach() * START_COUNT

    @torch.no_grad()
    def follow(self, latents: Tensor, step: int, config: LandmarkTrainConfig, generator: torch.Generator) -> None:
        """Move the entries towards latents [B, T, groups * dim]; rare ones restart at one of them."""
        parts = self.quantizer.split(latents)
        codes = self.quantizer(latents).codes.flatten(0, 1).T
        keep, entries = config.code_memory, self.quantizer.config.entries
        settled = step >= config.steps - SETTLED * (config.steps - config.free_steps)
        for group, (part, code) in enumerate(zip(parts, codes, strict=True)):
            sums = torch.zeros_like(self.sums[group]).index_add_(0, code, part)
            new = (1 - keep) * config.batch
            self.counts[group].mul_(keep).add_(torch.bincount(code, minlength=entries), alpha=new)
            self.sums[group].mul_(keep).add_(sums, alpha=new)
            if step % RESTART_EVERY == 0 and not settled:
                mean = self.counts[group].mean()
                rare = self.counts[group] < RARE * mean
                at = torch.randint(len(part), (entries,), generator=generator).to(part.device)
                self.counts[group] = torch.where(rare, RESTART_COUNT * mean, self.counts[group])
                self.sums[group] = torch.where(rare[:, None], part[at] * RESTART_COUNT * mean, self.sums[group])
            self.quantizer.codebook.data[group] = self.sums[group] / self.counts[group][:, None].clamp_min(1e-4)

    def state_dict(self) -> dict[str, Tensor]:
        """The entries and their running counts and sums."""
        return {"codebook": self.quantizer.codebook.detach(), "counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was saved."""
        self.quantizer.codebook.data.copy_(state["codebook"])
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])


@torch.no_grad()
def k_means(rows: Tensor, count: int, generator: torch.Generator, rounds: int = 12) -> Tensor:
    """`count` means [count, C] of `rows` [N, C]; empty ones restart at a random row."""
    means = rows[torch.randint(len(rows), (count,), generator=generator)]
    for _ in range(rounds):
        nearest = torch.cdist(rows, means).argmin(1)
        members = torch.bincount(nearest, minlength=count)[:, None]
        sums = torch.zeros_like(means).index_add_(0, nearest, rows)
        restart = rows[torch.randint(len(rows), (count,), generator=generator)]
        means = torch.where(members > 0, sums / members.clamp_min(1), restart)
    return means
