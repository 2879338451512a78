"""StyleGAN2 (Karras et al., 2020) at 256 x 256, whose convolutions can be changed separately for each sample.

Parameters are named as in the published `stylegan-voxceleb.pt`, entry `g_ema` (the common PyTorch layout).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.stylegan2 import ModulatedConv2d, Upsample

__all__ = ["ChangedConv2d", "Generator"]

LATENT = 512
WIDTHS = (512, 512, 512, 512, 256, 128, 64)
"""Channels at sides 4, 8, … 256."""
RATE = 0.01
"""Additional scale of the mapping network's weights and biases, besides 1 / sqrt(fan-in)."""


class _Mapping(nn.Module):
    """One layer of the mapping network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(LATENT, LATENT)), nn.Parameter(torch.zeros(LATENT))

    def forward(self, x: Tensor) -> Tensor:
        return _activated(F.linear(x, self.weight * (RATE / math.sqrt(LATENT)), self.bias * RATE))


class _PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class _Scaled(nn.Module):
    """Noise with a learned strength."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class _Bias(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class ChangedConv2d(ModulatedConv2d):
    """A modulated convolution with weights W (1 + change), separately for each sample."""

    def changed(self, x: Tensor, latent: Tensor, change: Tensor) -> Tensor:
        """x [B, C, H, W], latent [B, L], change [B, D, C], which is the same for all kernel taps."""
        batch, channels, height, width = x.shape
        weight = self.weight * self.scale * (1 + change)[..., None, None]
        weight = weight * self.modulation(latent)[:, None, :, None, None]
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = x.reshape(1, batch * channels, height, width)
        if self.upsample:
            x = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
        else:
            x = F.conv2d(x, weight.flatten(0, 1), padding=self.padding, groups=batch)
        x = x.view(batch, -1, *x.shape[2:])
        return self.blur(x) if self.upsample else x


class _StyledConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ChangedConv2d(inputs, outputs, 3, LATENT, upsample=upsample)
        self.noise, self.activate = _Scaled(), _Bias(outputs)

    def forward(self, x: Tensor, latent: Tensor, noise: Tensor, change: Tensor | None) -> Tensor:
        x = self.conv(x, latent) if change is None else self.conv.changed(x, latent, change)
        return _activated(x + self.noise.weight * noise + self.activate.bias.view(1, -1, 1, 1))


class _ToRGB(nn.Module):
    def __init__(self, inputs: int, *, upsample: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, 3, 1, LATENT, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if upsample:
            self.upsample = Upsample()

    def forward(self, x: Tensor, latent: Tensor, before: Tensor | None) -> Tensor:
        out = self.conv(x, latent) + self.bias
        return out if before is None else out + self.upsample(before)


class _Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.zeros(1, LATENT, 4, 4))


class _Noises(nn.Module):
    """The noise added to every image, stored in the file: one at side 4, two at every other size."""

    def __init__(self) -> None:
        super().__init__()
        for index in range(2 * len(WIDTHS) - 1):
            side = 4 * 2 ** ((index + 1) // 2)
            self.register_buffer(f"noise_{index}", torch.zeros(1, 1, side, side))

    def __getitem__(self, index: int) -> Tensor:
        return self.get_buffer(f"noise_{index}")


class Generator(nn.Module):
    """Codes w+ [B, 14, 512] -> images [B, 3, 256, 256], about -1..1."""

    def __init__(self) -> None:
        super().__init__()
        self.style = nn.Sequential(_PixelNorm(), *(_Mapping() for _ in range(8)))
        self.input = _Constant()
        self.conv1, self.to_rgb1 = _StyledConv(512, 512), _ToRGB(512, upsample=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in pairwise(WIDTHS):
            self.convs.extend([_StyledConv(inputs, outputs, upsample=True), _StyledConv(outputs, outputs)])
            self.to_rgbs.append(_ToRGB(outputs))
        self.noises = _Noises()

    def mean_code(self, seed: int, count: int = 4096) -> Tensor:
        """The mean [1, 512] of the mapping network over normal inputs, sampled with `seed`."""
        inputs = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(seed))
        mean: Tensor = self.style(inputs.to(self.input.input)).mean(0, keepdim=True)
        return mean

    def forward(self, codes: Tensor, changes: Mapping[int, Tensor] | None = None) -> Tensor:
        """`changes` maps a layer (per size two convolutions and one to colour, counted from 0) to [B, out, in]."""
        changes = changes or {}
        x = self.conv1(self.input.input.expand(len(codes), -1, -1, -1), codes[:, 0], self.noises[0], changes.get(0))
        colour: Tensor = self.to_rgb1(x, codes[:, 1], None)
        for step, to_rgb in enumerate(self.to_rgbs):
            code, layer = 2 * step + 1, 3 * step + 2
            x = self.convs[2 * step](x, codes[:, code], self.noises[code], changes.get(layer))
            x = self.convs[2 * step + 1](x, codes[:, code + 1], self.noises[code + 1], changes.get(layer + 1))
            colour = to_rgb(x, codes[:, code + 2], colour)
        return colour


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)
