"""The Inception-v3 on which FID is defined, up to its last pooling, with batch normalisation fused into the weights.

Szegedy et al., "Rethinking the Inception architecture", 2016, as in the TensorFlow graph of 2015-12-05, converted by
pytorch-fid. That graph differs from other Inception-v3 versions: average pooling excludes the padding from its mean,
and the last block uses max pooling. Layers are named as in the weights file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BATCH_NORM_EPS", "Convolution", "InceptionFID"]

BATCH_NORM_EPS = 1e-3

Layer = tuple[str, int, tuple[int, int], int]
"""Name, output channels, kernel (height, width), stride."""
Chain = Sequence[Sequence[Layer]]
"""Consecutive stages; the layers of one stage see the same input and are concatenated."""
Pool = Literal["average", "maximum", "downsample"]


class Convolution(nn.Conv2d):
    """A convolution with the bias resulting from batch normalisation, followed by a ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, padding: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(super().forward(input), inplace=True)


class _Block(nn.Module):
    """Parallel chains of convolutions and a pooling, concatenated along the channels in this order."""

    def __init__(self, inputs: int, chains: Sequence[Chain], pool: Pool, pooled: int = 0) -> None:
        super().__init__()
        self.chains = [[[layer[0] for layer in stage] for stage in chain] for chain in chains]
        self.pool = pool
        self.outputs = 0
        for chain in chains:
            width = inputs
            for stage in chain:
                for name, outputs, kernel, stride in stage:
                    padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else (0, 0)
                    self.add_module(name, Convolution(width, outputs, kernel, stride, padding))
                width = sum(layer[1] for layer in stage)
            self.outputs += width
        if pool != "downsample":
            self.branch_pool = Convolution(inputs, pooled, (1, 1))
        self.outputs += inputs if pool == "downsample" else pooled

    def forward(self, x: Tensor) -> Tensor:
        branches = []
        for chain in self.chains:
            y = x
            for stage in chain:
                parts = [self.get_submodule(name)(y) for name in stage]
                y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            branches.append(y)
        if self.pool == "downsample":
            branches.append(functional.max_pool2d(x, 3, stride=2))
        elif self.pool == "maximum":
            branches.append(self.branch_pool(functional.max_pool2d(x, 3, stride=1, padding=1)))
        else:
            pooled = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            branches.append(self.branch_pool(pooled))
        return torch.cat(branches, 1)


def _chain(name: str, *layers: tuple[int, int, int], stride: int = 1) -> Chain:
    """Layers (output channels, kernel height, width) named `name_1`, `name_2`, …; only the last one has the stride."""
    last = len(layers)
    return [
        [(f"{name}_{number}", outputs, (height, width), stride if number == last else 1)]
        for number, (outputs, height, width) in enumerate(layers, 1)
    ]


def _single(name: str, outputs: int, size: int = 1, stride: int = 1) -> Chain:
    return [[(name, outputs, (size, size), stride)]]


def _forked(name: str, *layers: tuple[int, int, int]) -> Chain:
    """A chain that ends in two parallel 1-D convolutions of 384 channels, `name_Na` horizontal and `name_Nb`
    vertical."""
    number = len(layers) + 1
    fork = [(f"{name}_{number}a", 384, (1, 3), 1), (f"{name}_{number}b", 384, (3, 1), 1)]
    return [*_chain(name, *layers), fork]


def _fine(inputs: int, pooled: int) -> _Block:
    """A block at 35 x 35 positions."""
    dense = _chain("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3))
    chains = [_single("branch1x1", 64), _chain("branch5x5", (48, 1, 1), (64, 5, 5)), dense]
    return _Block(inputs, chains, "average", pooled)


def _middle(inner: int) -> _Block:
    """A block at 17 x 17 positions, with 7 x 7 windows factorised into two 1-D convolutions via `inner` channels."""
    once = _chain("branch7x7", (inner, 1, 1), (inner, 1, 7), (192, 7, 1))
    twice = _chain("branch7x7dbl", (inner, 1, 1), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7))
    return _Block(768, [_single("branch1x1", 192), once, twice], "average", 192)


def _coarse(inputs: int, pool: Pool) -> _Block:
    """A block at 8 x 8 positions."""
    chains = [
        _single("branch1x1", 320),
        _forked("branch3x3", (384, 1, 1)),
        _forked("branch3x3dbl", (448, 1, 1), (384, 3, 3)),
    ]
    return _Block(inputs, chains, pool, 192)


class InceptionFID(nn.Module):
    """float32[B, 3, 299, 299] in -1..1 -> float32[B, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = Convolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3))
        self.Mixed_5b = _fine(192, 32)
        self.Mixed_5c = _fine(256, 64)
        self.Mixed_5d = _fine(288, 64)
        halving = _chain("branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3), stride=2)
        self.Mixed_6a = _Block(288, [_single("branch3x3", 384, 3, 2), halving], "downsample")
        self.Mixed_6b = _middle(128)
        self.Mixed_6c = _middle(160)
        self.Mixed_6d = _middle(160)
        self.Mixed_6e = _middle(192)
        narrow = _chain("branch3x3", (192, 1, 1), (320, 3, 3), stride=2)
        flat = _chain("branch7x7x3", (192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3), stride=2)
        self.Mixed_7a = _Block(768, [narrow, flat], "downsample")
        self.Mixed_7b = _coarse(1280, "average")
        self.Mixed_7c = _coarse(2048, "maximum")

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))
