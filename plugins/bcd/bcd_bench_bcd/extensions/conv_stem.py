"""A small convolutional network before the encoder, for images that one linear map per frame cannot encode.

The paper gives the encoder one linear token per frame. That is enough for sprites, which have few poses, and for
latents of a large autoencoder; in pixels of faces, an eyelid is a handful of values that move with the head. Here a
frame's token comes from a convolutional network, and the content queries attend to its grid of features of all frames,
before T5 and after it. If there is one query per position, it is initialised with the mean feature at that position
over the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extension, Recipe
from bcd_bench_bcd.paper.config import EncoderConfig
from bcd_bench_bcd.paper.decoder import grid_positions
from bcd_bench_bcd.paper.encoder import t5_encoder

__all__ = ["ConvEncoder", "ConvStem", "PatchReader", "Stem"]

BLOCKS = 1
"""Residual blocks at each of the two scales."""
GROUPS = 8
"""Groups of channels that are normalised together."""
TOKEN_CHANNELS = 24
"""Channels per position in a frame's token, which therefore encodes where things are."""


class ConvStem(Extension):
    name: ClassVar[str] = "conv_stem"
    summary: ClassVar[str] = "a convolutional network before the encoder, and queries that look at its features"
    changes_model: ClassVar[bool] = True

    stride: int = Field(default=8, ge=2)
    """Pixels along a side per position of the grid of features."""

    def check(self, preset: Recipe) -> None:
        if any(side % self.stride for side in preset.model.grid) or self.stride % 2:
            raise ValueError(
                f"conv_stem requires frame sides that are multiples of an even stride, not {preset.model.grid}"
            )


class ResidualBlock(nn.Module):
    """x + conv(GELU(norm(conv(GELU(norm(x)))))), 3 x 3; initially the identity."""

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
        changed: Tensor = self.layers(x)
        return x + changed


class Stem(nn.Module):
    """Maps each frame independently to a grid of features and one token."""

    positions: Tensor

    def __init__(self, channels: int, grid: tuple[int, int], width: int, stride: int) -> None:
        super().__init__()
        rows, columns = grid[0] // stride, grid[1] // stride
        self.fold = nn.PixelUnshuffle(stride // 2)
        self.down = nn.Sequential(
            nn.Conv2d(channels * (stride // 2) ** 2, width // 2, 1),
            *(ResidualBlock(width // 2) for _ in range(BLOCKS)),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            *(ResidualBlock(width) for _ in range(BLOCKS)),
        )
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", grid_positions(rows, columns, width), persistent=False)
        self.narrow = nn.Linear(width, TOKEN_CHANNELS)
        self.token = nn.Linear(TOKEN_CHANNELS * rows * columns, width)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """`frames` [B, T, C, H, W] -> features [B, T, S, width] of S positions, tokens [B, T, width]."""
        batch, length = frames.shape[:2]
        h = self.down(self.fold(frames.flatten(0, 1)).contiguous(memory_format=torch.channels_last))
        features = self.norm(h.flatten(2).transpose(1, 2))
        token = self.token(nn.functional.gelu(self.narrow(features)).flatten(1))
        located = features + self.positions.to(features.dtype)
        return located.view(batch, length, *located.shape[1:]), token.view(batch, length, -1)


class PatchReader(nn.Module):
    """Cross-attention from content queries to all positions of all frames (any number of frames)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """`queries` [B, K, width] and `features` [B, T, S, width] -> `queries` plus the attention output."""
        batch, count, width = queries.shape
        q = self.query(self.norm(queries)).view(batch, count, self.heads, -1).transpose(1, 2)
        pairs = self.key_value(features.flatten(1, 2)).view(batch, -1, 2, self.heads, width // self.heads)
        k, v = pairs.permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(q.to(k.dtype), k, v)
        out: Tensor = self.out(attended.transpose(1, 2).reshape(batch, count, width))
        return queries + out


class ConvEncoder(nn.Module):
    """The paper's encoder with a convolutional stem instead of the linear map, and optionally a canonical map."""

    def __init__(
        self,
        config: EncoderConfig,
        channels: int,
        grid: tuple[int, int],
        stride: int,
        canonical: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.stem = Stem(channels, grid, config.width, stride)
        self.readers = nn.ModuleList(PatchReader(config.width, config.heads) for _ in range(2))
        self.canonical = None if canonical is None else canonical()
        self.queries = nn.Parameter(torch.randn(config.content_tokens, config.width) * 0.5)
        self.t5 = t5_encoder(config)

    def forward(self, frames: Tensor, *, canonical: bool = True) -> tuple[Tensor, Tensor]:
        """`frames` [B, T, C, h, w], roughly standardised -> content [B, K, width], motion [B, T, width].

        If there is a canonical map and `canonical` is true, its channels follow those of the content tokens.
        """
        features, tokens = self.stem(frames)
        queries = self.queries.to(tokens.dtype).expand(len(tokens), -1, -1)
        if queries.shape[1] == features.shape[2]:
            queries = queries + features.mean(1)
        queries = self.readers[0](queries, features)
        hidden = self.t5(torch.cat([queries, tokens], 1))
        content, motion = hidden.split([queries.shape[1], tokens.shape[1]], 1)
        content = self.readers[1](content, features)
        if self.canonical is not None and canonical:
            content = torch.cat([content, self.canonical(frames, features, motion).to(content.dtype)], -1)
        return content, motion
