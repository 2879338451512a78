"""How the codes of the next frame are chosen: greedily as in the paper, or at random."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.autoregressive.model import Continuation, MotionGPT
from bcd_bench_bcd.paper.config import Config

__all__ = ["SamplingConfig", "choose", "frame_generator", "generate_codes"]


class SamplingConfig(Config):
    """How codes are sampled. Every codebook is sampled independently, given the earlier frames."""

    temperature: float = Field(default=0.0, ge=0)
    """Divides the logits; 0 takes the most probable code (greedy), as the paper does."""
    top_k: int | None = Field(default=None, ge=1)
    """Sample among the K most probable codes only."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Sample among the smallest set of most probable codes whose probabilities sum to P or more."""

    def check(self, entries: int) -> None:
        """Raise `UsageError` if the settings do not fit a codebook of `entries` codes."""
        if self.top_k is not None and self.top_k > entries:
            raise UsageError(f"top_k {self.top_k}: a codebook has {entries} entries", hint=f"use 1 to {entries}")


def choose(logits: Tensor, sampling: SamplingConfig, uniform: Tensor) -> Tensor:
    """Codes int64 [B, N] for logits [B, N, J]; `uniform` [B, N] in [0, 1) decides, by the inverse distribution
    function."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scaled, order = (logits.double() / sampling.temperature).sort(-1, descending=True)
    probabilities = scaled.softmax(-1)
    if sampling.top_k is not None:
        probabilities[..., sampling.top_k :] = 0
    if sampling.top_p is not None:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = torch.where(before < sampling.top_p * probabilities.sum(-1, keepdim=True), probabilities, 0)
    cumulative = probabilities.cumsum(-1)
    threshold = uniform[..., None].to(cumulative) * cumulative[..., -1:]
    index = (cumulative <= threshold).sum(-1, keepdim=True).clamp_max(logits.shape[-1] - 1)
    return order.gather(-1, index)[..., 0]


@torch.inference_mode()
def generate_codes(
    model: MotionGPT,
    content: Tensor,
    prompt: Tensor,
    frames: int,
    sampling: SamplingConfig,
    seeds: Sequence[int],
    *,
    cache: bool = True,
    alone: bool = False,
    done: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Continue the codes `prompt` int [B, k, N] to `frames` frames in all: int64 [B, frames, N].

    `content` are content tokens [B, K, C_c]; `seeds` has one seed per clip. The random numbers of a frame depend on the
    clip's seed and the frame's number alone, so the result neither depends on the batch nor on how much of it is passed
    as `prompt`. `alone` says that content and prompt come from a single frame. `done` is called with the codes [B, N]
    of every new frame. Raises `UsageError` if `sampling` does not fit the codebook.
    """
    sampling.check(model.config.codes.entries)
    state = Continuation(model, content, cache=cache, alone=alone)
    codes = list(prompt.long().unbind(1))
    for known in codes:
        state.append(known)
    while len(codes) < frames:
        logits = state.logits()
        uniform = torch.stack([_uniform(logits.shape[1], seed, len(codes)) for seed in seeds])
        chosen = choose(logits, sampling, uniform.to(logits.device))
        codes.append(chosen)
        state.append(chosen)
        if done is not None:
            done(chosen)
    return torch.stack(codes[:frames], 1)


def _uniform(groups: int, seed: int, frame: int) -> Tensor:
    return torch.rand(groups, generator=frame_generator(seed, frame, "codes"))


def frame_generator(seed: int, frame: int, use: str) -> torch.Generator:
    """The random numbers of one frame of a clip, for one use."""
    digest = hashlib.sha256(f"bcd-motion/{use}/{seed}/{frame}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
