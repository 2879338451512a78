"""Ours: a small convolutional network before the encoder, for pictures that one linear map per frame cannot read.

The paper gives the encoder one linear token a frame. That is enough for sprites, whose poses are few, and for latents
of a large autoencoder; in pixels of faces, an eyelid is a handful of values that move about with the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcd_bench_bcd.decoder import grid_positions

__all__ = ["ConvStem", "PatchReader"]

GROUPS = 8
"""Groups of channels that are normalised together."""
TOKEN_CHANNELS = 24
"""Channels a place keeps in a frame's token: the token knows where things are."""


class ResidualBlock(nn.Module):
    """x + conv(GELU(norm(conv(GELU(norm(x)))))), 3 x 3; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, width, H, W] -> the same shape."""
        return x + self.layers(x)


class ConvStem(nn.Module):
    """Frames to a grid of features and one token each; every frame by itself."""

    def __init__(self, channels: int, frame_size: tuple[int, int], width: int, blocks: int, shrink: int) -> None:
        super().__init__()
        height, across = frame_size
        if height % shrink or across % shrink or shrink % 2:
            raise ValueError(f"the convolutional stem needs sides that are multiples of {shrink}, not {frame_size}")
        rows, columns = height // shrink, across // shrink
        self.fold = nn.PixelUnshuffle(shrink // 2)
        self.down = nn.Sequential(
            nn.Conv2d(channels * (shrink // 2) ** 2, width // 2, 1),
            *(ResidualBlock(width // 2) for _ in range(blocks)),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            *(ResidualBlock(width) for _ in range(blocks)),
        )
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", grid_positions(rows, columns, width), persistent=False)
        self.narrow = nn.Linear(width, TOKEN_CHANNELS)
        self.token = nn.Linear(TOKEN_CHANNELS * rows * columns, width)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """`frames` [B, T, C, H, W] -> features [B, T, S, width] of S places, tokens [B, T, width]."""
        batch, length = frames.shape[:2]
        h = self.down(self.fold(frames.flatten(0, 1)).contiguous(memory_format=torch.channels_last))
        features = self.norm(h.flatten(2).transpose(1, 2))
        token = self.token(nn.functional.gelu(self.narrow(features)).flatten(1))
        placed = features + self.positions.to(features.dtype)
        return placed.view(batch, length, *placed.shape[1:]), token.view(batch, length, -1)


class PatchReader(nn.Module):
    """Cross-attention by which content queries look at all places of all frames, any number of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """`queries` [B, K, width] and `features` [B, T, S, width] -> `queries` with what they found added."""
        batch, count, width = queries.shape
        q = self.query(self.norm(queries)).view(batch, count, self.heads, -1).transpose(1, 2)
        pairs = self.key_value(features.flatten(1, 2)).view(batch, -1, 2, self.heads, width // self.heads)
        k, v = pairs.permute(2, 0, 3, 1, 4).unbind(0)
        found = nn.functional.scaled_dot_product_attention(q.to(k.dtype), k, v)
        return queries + self.out(found.transpose(1, 2).reshape(batch, count, width))
