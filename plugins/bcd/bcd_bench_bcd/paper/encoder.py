"""The disentangling encoder: [c, m] = T5([q; Proj(z_1) .. Proj(z_T)]) (Sec. 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcd_bench_bcd.paper.config import EncoderConfig
from bcd_bench_bcd.paper.t5 import T5Encoder

__all__ = ["Encoder", "t5_encoder"]


def t5_encoder(config: EncoderConfig) -> T5Encoder:
    """T5's encoder of this size. Its positions are relative, so it accepts any number of frames."""
    return T5Encoder(config.layers, config.width, config.heads, config.feed_forward)


class Encoder(nn.Module):
    """Separate a clip into content, one set of tokens per clip, and motion, one latent per frame.

    Every frame z_t becomes one token by a linear map of all its values. K learned content queries q precede the frame
    tokens. The outputs of T5 at the query positions are the content c, those at the frame positions the continuous
    motion m.
    """

    def __init__(self, config: EncoderConfig, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.project = nn.Linear(channels * grid[0] * grid[1], config.width)  # Proj
        self.queries = nn.Parameter(torch.randn(config.content_tokens, config.width) * 0.5)  # q
        self.t5 = t5_encoder(config)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """`frames` z [B, T, C, h, w], roughly standardised -> content c [B, K, d], motion m [B, T, d]."""
        tokens = self.project(frames.flatten(2))
        queries = self.queries.to(tokens.dtype).expand(len(tokens), -1, -1)
        hidden = self.t5(torch.cat([queries, tokens], 1))
        content, motion = hidden.split([queries.shape[1], tokens.shape[1]], 1)
        return content, motion
