"""MCNET's memory unit: features are compared with a facial memory that is adapted to the source's identity.

Hong and Xu, "Implicit Identity Representation Conditioned Memory Compensation Network for Talking Head Video
Generation", ICCV 2023. One set of weights serves three scales; only the first and last layers are specific to one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.stylegan2 import ModulatedConv2d

__all__ = ["SCALES", "SIDE", "DynamicConv", "MemoryUnit", "StyledMemory", "Trace", "attend"]

WIDTH = 512
"""Channels of the memory and of the features compared with it."""
SIDE = 32
SCALES = {32: 512, 64: 256, 128: 128}
"""Height and width of the features -> their channels."""
KERNELS = 4
TEMPERATURE = 34.0
DIVISOR = 4.0
"""Divisor of the products of query and key, instead of the usual square root of their length."""
SLOPE = 0.2


class _Bias(nn.Module):
    """A bias per channel, then a leaky ReLU, times the square root of 2, as in StyleGAN2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias[:, None, None].to(x.dtype), SLOPE) * math.sqrt(2)


class StyledMemory(nn.Module):
    """The memory [1, 512, 32, 32] modulated by the style of B faces [B, 512] -> [B, 512, 32, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        """Strength of the noise."""
        self.modulated_conv = ModulatedConv2d(WIDTH, WIDTH, 3, WIDTH)
        self.activate = _Bias(WIDTH)

    def forward(self, memory: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        x = self.modulated_conv(memory.expand(len(style), -1, -1, -1), style)
        if noise is not None:
            x = x + self.weight * noise
        styled: Tensor = self.activate(x)
        return styled


class _KernelAttention(nn.Module):
    """Features [B, N, 512] -> weights [B, 4] of the kernels."""

    def __init__(self) -> None:
        super().__init__()
        hidden = WIDTH // 4 + 1
        self.fc1 = nn.Conv2d(WIDTH, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, KERNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1)[:, :, None, None]
        logits = self.fc2(F.relu(self.fc1(mean))).flatten(1).float()
        return (logits / TEMPERATURE).softmax(1)


class DynamicConv(nn.Module):
    """A 3 x 3 convolution with a separate kernel for each sample, mixed from four: [B, 512, h, w] -> [B, 1024, h,
    w]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(KERNELS, 2 * WIDTH, WIDTH, 3, 3))
        self.bias = nn.Parameter(torch.zeros(KERNELS, 2 * WIDTH))
        self.attention = _KernelAttention()

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        weight = (shares @ self.weight.flatten(1)).view(len(x), *self.weight.shape[1:])
        bias = shares @ self.bias
        # one convolution per sample: each is large enough to use a machine fully, and few groups are slow
        parts = [F.conv2d(sample[None], w, b, padding=1) for sample, w, b in zip(x, weight, bias, strict=True)]
        return torch.cat(parts)


class Trace(NamedTuple):
    """Intermediate results of the unit, for B samples with features of N = w * w pixels.

    feat, query [B, N, 512]; memory [B, 512, 32, 32]; key, value [B, 1024, 512]; style [B, 512]; shares [B, 4].
    """

    feat: Tensor
    memory: Tensor
    key: Tensor
    value: Tensor
    query: Tensor
    style: Tensor
    shares: Tensor


class MemoryUnit(nn.Module):
    """Warped source features [B, C, w, w] -> the same with every second channel compensated from memory."""

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        self.mb = nn.Parameter(torch.zeros(1, WIDTH, SIDE, SIDE))
        for side, channels in SCALES.items():
            self.add_module(f"feat_forward_proj_{side}", nn.Conv2d(channels // 2, WIDTH, 1))
            self.add_module(f"conv_{side}", nn.Conv2d(WIDTH, channels // 2, 3, padding=1))
            self.add_module(f"norm_{side}", nn.InstanceNorm2d(channels // 2, affine=True))
        self.query_conv = nn.Conv2d(WIDTH, WIDTH, 1)
        self.conv_kv = DynamicConv()
        self.diff_conv = nn.Conv2d(WIDTH, WIDTH, 1)
        self.style_route = nn.Sequential(nn.Linear(WIDTH + 2 * keypoints, 128), nn.ReLU(), nn.Linear(128, WIDTH))
        self.styleconv = StyledMemory()

    def forward(self, x: Tensor, source: Tensor, noise: Tensor | None = None) -> Tensor:
        """x [B, C, w, w], positions of the source's keypoints [1, K, 2]; `noise` [1 or B, 1, 32, 32], None for none."""
        return self.compensate(x, self.trace(x, source, noise))

    def trace(self, x: Tensor, source: Tensor, noise: Tensor | None = None) -> Trace:
        """All steps up to the memory query."""
        inputs, projection = _tokens(x[:, 1::2]), self._projection(x)
        feat = F.linear(inputs, *projection)
        positions = source.flatten(1).expand(len(x), -1)
        style = self.style_route(torch.cat([feat.float().mean(1), positions], 1))
        memory = self.styleconv(self.mb, style, noise)
        shares = self.conv_kv.attention(feat)
        key, value = F.relu(self.conv_kv(memory, shares)).chunk(2, 1)
        query = F.relu(F.linear(inputs, *_after(projection, self.query_conv)))
        return Trace(feat, memory, _tokens(key), _tokens(value), query, style, shares)

    def compensate(self, x: Tensor, found: Trace) -> Tensor:
        """Keep the even channels, recompute the odd ones from features and memory."""
        # diff_conv(feat - answer), where the answer is a mean of values: it is applied to the 1024 values, and to the
        # few channels that feat was computed from, instead of to every pixel
        answer = attend(found.query, found.key, F.linear(found.value, self.diff_conv.weight.flatten(1)))
        features = F.linear(_tokens(x[:, 1::2]), *_after(self._projection(x), self.diff_conv))
        mixed = F.relu(features - answer) + found.feat
        new = self._layer("conv", x)(mixed.transpose(1, 2).unflatten(2, x.shape[-2:]))
        new = F.relu(self._layer("norm", x)(new.float()))
        return torch.stack([x[:, 0::2], new.to(x.dtype)], 2).flatten(1, 2)

    def _projection(self, x: Tensor) -> tuple[Tensor, Tensor]:
        layer = self._layer("feat_forward_proj", x)
        return layer.weight.flatten(1), layer.bias

    def _layer(self, name: str, x: Tensor) -> nn.Module:
        return self.get_submodule(f"{name}_{x.shape[-1]}")


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Means of the values weighted by softmax(query . key / 4): [B, N, 512] from [B, N, 512] and twice [B, M, 512]."""
    q, k, v = (part[:, None].contiguous() for part in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, scale=1 / DIVISOR)[:, 0]


def _tokens(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h * w, C]."""
    return x.flatten(2).transpose(1, 2)


def _after(first: tuple[Tensor, Tensor], second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of two consecutive 1 x 1 convolutions merged into one."""
    weight = second.weight.flatten(1)
    assert second.bias is not None, "it has a bias"
    return weight @ first[0], torch.mv(weight, first[1]) + second.bias
