"""The encoder of T5 (Raffel et al. 2020): pre-normalised blocks of self-attention with relative positions.

Inputs are embeddings. Parameters have the names of transformers' `T5Stack`, whose weights load and whose outputs these
are (`tests/bcd/test_t5.py`). Importing that class takes 3 seconds, longer than a transfer of 25 frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["T5Encoder"]

BUCKETS = 32
"""Number of classes of relative positions; half of them are for keys after the query."""
MAX_DISTANCE = 128
"""Tokens from which on all distances share a bucket."""


class T5Encoder(nn.Module):
    """`layers` blocks over tokens [B, L, width], which see all tokens; there is no dropout."""

    def __init__(self, layers: int, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(width, heads, feed_forward, first=not index) for index in range(layers))
        self.final_layer_norm = RMSNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, width] -> tokens [B, L, width]. The first block's position bias serves all blocks."""
        bias = self.block[0].layer[0]["SelfAttention"].position_bias(tokens.shape[1])
        for block in self.block:
            tokens = block(tokens, bias)
        normalized: Tensor = self.final_layer_norm(tokens)
        return normalized


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each added to its input."""

    def __init__(self, width: int, heads: int, feed_forward: int, *, first: bool) -> None:
        super().__init__()
        attention = Attention(width, heads, position_bias=first)
        self.layer = nn.ModuleList(
            [
                nn.ModuleDict({"SelfAttention": attention, "layer_norm": RMSNorm(width)}),
                nn.ModuleDict({"DenseReluDense": FeedForward(width, feed_forward), "layer_norm": RMSNorm(width)}),
            ]
        )

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        attention, dense = self.layer
        tokens = tokens + attention["SelfAttention"](attention["layer_norm"](tokens), bias)
        out: Tensor = tokens + dense["DenseReluDense"](dense["layer_norm"](tokens))
        return out


class Attention(nn.Module):
    """softmax(q k^T + bias) v in several heads. T5 does not divide by the root of the head's width."""

    def __init__(self, width: int, heads: int, *, position_bias: bool) -> None:
        super().__init__()
        self.heads, each = heads, width // heads
        self.q = linear(width, heads * each, (width * each) ** -0.5)
        self.k = linear(width, heads * each, width**-0.5)
        self.v = linear(width, heads * each, width**-0.5)
        self.o = linear(heads * each, width, (heads * each) ** -0.5)
        if position_bias:
            self.relative_attention_bias = nn.Embedding(BUCKETS, heads)
            nn.init.normal_(self.relative_attention_bias.weight, std=width**-0.5)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            part(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        out = nn.functional.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), scale=1.0)
        mixed: Tensor = self.o(out.transpose(1, 2).flatten(2))
        return mixed

    def position_bias(self, length: int) -> Tensor:
        """What is added to the scores of `length` tokens [1, heads, length, length]: one number per head and bucket."""
        place = torch.arange(length, device=self.relative_attention_bias.weight.device)
        bias: Tensor = self.relative_attention_bias(relative_bucket(place - place[:, None]))
        return bias.permute(2, 0, 1)[None]


class FeedForward(nn.Module):
    """Two linear maps with a ReLU between them."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.wi = linear(width, feed_forward, width**-0.5)
        self.wo = linear(feed_forward, width, feed_forward**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.wo(self.wi(tokens).relu())
        return out


class RMSNorm(nn.Module):
    """Divide by the root mean square, computed in float32, and scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        square = tokens.float().square().mean(-1, keepdim=True)
        return self.weight * (tokens * torch.rsqrt(square + 1e-6))


def relative_bucket(offset: Tensor) -> Tensor:
    """Buckets 0..31 of key positions minus query positions: one for each distance up to 7, then logarithmic."""
    half = BUCKETS // 2
    exact = half // 2
    distance = offset.abs()
    far = exact + (torch.log(distance / exact) / math.log(MAX_DISTANCE / exact) * (half - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=half - 1)) + (offset > 0) * half


def linear(inputs: int, outputs: int, std: float) -> nn.Linear:
    """A linear map without bias, whose weights are normal."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer
