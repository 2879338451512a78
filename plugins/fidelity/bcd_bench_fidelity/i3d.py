"""The I3D on which FVD is defined, up to its logits, with batch normalisation fused into the weights.

Carreira and Zisserman, "Quo vadis, action recognition?", CVPR 2017: Inception-v1 with 3-D convolutions, trained on
Kinetics-400, RGB. Layers are named as in the weights file; padding is that of TensorFlow ("same"), which depends on
the size of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from bcd_bench_fidelity.fuse_batchnorm import fold

__all__ = ["CLASSES", "I3D", "LEAST_FRAMES", "i3d_network"]

BATCH_NORM_EPS: Final = 1e-5
CLASSES: Final = 400
LEAST_FRAMES: Final = 9
"""Fewer frames leave less than the two steps in time over which the last pooling averages."""

Sizes = tuple[int, int, int, int, int, int]
"""Output channels: direct; reduction and 3 x 3 x 3; reduction and 3 x 3 x 3; after pooling."""


def _same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """`x` [B, C, T, H, W] with the zeros around it of TensorFlow's padding "same"."""
    padding: list[int] = []
    for size, width, step in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max(width - (step if size % step == 0 else size % step), 0)
        padding = [missing // 2, missing - missing // 2, *padding]  # the last axis comes first
    return functional.pad(x, padding)


class _Convolution(nn.Module):
    """A convolution with the bias resulting from batch normalisation, followed by a ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv3d(_same(x, self.conv3d.kernel_size, self.conv3d.stride)), inplace=True)


class _Pool(nn.Module):
    """Maximum pooling; zeros take part at the borders, as in the reference."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool3d(_same(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """Four parallel branches, concatenated along the channels."""

    def __init__(self, inputs: int, sizes: Sizes) -> None:
        super().__init__()
        direct, first_inner, first, second_inner, second, pooled = sizes
        self.outputs = direct + first + second + pooled
        self.b0 = _Convolution(inputs, direct, 1)
        self.b1a = _Convolution(inputs, first_inner, 1)
        self.b1b = _Convolution(first_inner, first, 3)
        self.b2a = _Convolution(inputs, second_inner, 1)
        self.b2b = _Convolution(second_inner, second, 3)
        self.pool = _Pool((3, 3, 3), (1, 1, 1))
        self.b3b = _Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.pool(x))]
        return torch.cat(branches, 1)


MIXED: Final[Mapping[str, Sizes]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
POOLED_BEFORE: Final[Mapping[str, _Pool]] = {
    "Mixed_3b": _Pool((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": _Pool((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": _Pool((2, 2, 2), (2, 2, 2)),
}
"""The pooling before these blocks."""


class I3D(nn.Module):
    """float32[B, 3, T, 224, 224] in -1..1 with T at least 9 -> logits float32[B, 400], averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Convolution(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Convolution(64, 64, 1)
        self.Conv3d_2c_3x3 = _Convolution(64, 192, 3)
        width = 192
        for name, sizes in MIXED.items():
            block = _Mixed(width, sizes)
            self.add_module(name, block)
            width = block.outputs
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(width, CLASSES, 1)})

    def forward(self, x: Tensor) -> Tensor:
        x = POOLED_BEFORE["Mixed_3b"](self.Conv3d_1a_7x7(x))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        for name in MIXED:
            if name in POOLED_BEFORE:
                x = POOLED_BEFORE[name](x)
            x = self.get_submodule(name)(x)
        pooled = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        logits: Tensor = self.logits["conv3d"](pooled)
        return logits.mean((2, 3, 4))


def i3d_network(weights: Mapping[str, Tensor]) -> I3D:
    """The network with the weights of `i3d_pretrained_400.pt`. Raises `UsageError` if they are others."""
    with torch.device("meta"):  # no memory and no initialisation for weights that are replaced below
        network = I3D()
    names = [name for name, module in network.named_modules() if isinstance(module, _Convolution)]
    layers = [(f"{name}.conv3d", f"{name}.conv3d", f"{name}.bn") for name in names]
    return fold(network, weights, layers, BATCH_NORM_EPS, plain=("logits.conv3d",))
