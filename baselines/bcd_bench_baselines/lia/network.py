"""The networks of LIA: an encoder to a latent, orthonormal directions of motion, a synthesis network with flow fields.

Parameters are named as in the published `vox.pt`, entry `gen`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.stylegan2 import (
    Blur,
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    ScaledLeakyReLU,
    Upsample,
)

__all__ = ["LIA", "Level", "Source", "ToFlow"]

LATENT = 512
DIRECTIONS = 20
WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64}
"""Channels of a feature map by its side in pixels."""
SIZE = 256


def _conv(inputs: int, outputs: int, side: int, *, down: bool = False, activate: bool = True) -> nn.Sequential:
    """A convolution, after a blur if it halves the size, and with a bias and leaky ReLU if `activate`."""
    layers: list[nn.Module] = []
    if down:
        layers += [Blur((2, 2) if side == 3 else (1, 1)), EqualConv2d(inputs, outputs, side, stride=2)]
    else:
        layers.append(EqualConv2d(inputs, outputs, side, padding=side // 2))
    if activate:
        layers.append(ScaledLeakyReLU(outputs))
    return nn.Sequential(*layers)


class ResidualDown(nn.Module):
    """Two convolutions that halve the size, plus a parallel 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, inputs, 3)
        self.conv2 = _conv(inputs, outputs, 3, down=True)
        self.skip = _conv(inputs, outputs, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class AppearanceNet(nn.Module):
    """An image [B, 3, 256, 256] -> its latent [B, 512] and its feature maps, the coarsest (8 x 8) first."""

    def __init__(self) -> None:
        super().__init__()
        sides = sorted(WIDTHS, reverse=True)
        self.convs = nn.ModuleList([_conv(3, WIDTHS[sides[0]], 1)])
        for side, half in pairwise(sides):
            self.convs.append(ResidualDown(WIDTHS[side], WIDTHS[half]))
        self.convs.append(EqualConv2d(WIDTHS[4], LATENT, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = []
        for layer in self.convs:
            x = layer(x)
            maps.append(x)
        return x.flatten(1), maps[-3::-1]  # excludes the vector and the 4 x 4 map


class Encoder(nn.Module):
    """The latent of an image, and its magnitudes along the directions of motion."""

    def __init__(self) -> None:
        super().__init__()
        self.net_app = AppearanceNet()
        self.fc = nn.Sequential(*(EqualLinear(LATENT, LATENT) for _ in range(4)), EqualLinear(LATENT, DIRECTIONS))


class Direction(nn.Module):
    """Magnitudes [B, 20] -> displacement [B, 512] along the orthonormal columns of Q (Sec. 3.1 of the paper)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(LATENT, DIRECTIONS))

    def basis(self) -> Tensor:
        """Q [512, 20] of the reduced QR of the weights, with the signs of LAPACK's Householder reflections.

        Always computed on the CPU in float32: another library may flip the signs of columns, which would change the
        meaning of the checkpoint.
        """
        weight = self.weight.detach().float().cpu() + 1e-8
        return torch.linalg.qr(weight, mode="reduced").Q.to(self.weight.device)


class Constant(nn.Module):
    """The learned map [1, 512, 4, 4] that synthesis starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, WIDTHS[4], 4, 4))


class UnusedNoise(nn.Module):
    """The strength of StyleGAN2's noise. It is in the checkpoint, but LIA adds no noise at inference."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class StyledConv(nn.Module):
    """A modulated 3 x 3 convolution with bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, LATENT, upsample=upsample)
        self.noise = UnusedNoise()
        self.activate = ScaledLeakyReLU(outputs)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        return self.activate(self.conv(x, latent))


class ToRGB(nn.Module):
    """Features [B, C, R, R] -> their contribution to the image [B, 3, R, R]."""

    def __init__(self, inputs: int, *, upsample: bool = True) -> None:
        super().__init__()
        if upsample:
            self.upsample = Upsample()
        self.conv = _conv(inputs, 3, 1)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, below: Tensor | None) -> Tensor:
        out = self.conv(x) + self.bias
        return out if below is None else out + self.upsample(below)


class Level(NamedTuple):
    """The output of a flow head: the next features, the warped source map, and the raw 3-channel map."""

    features: Tensor
    warped: Tensor
    raw: Tensor


class ToFlow(nn.Module):
    """A flow field and a mask that warp a feature map of the source to the driving pose."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.upsample = Upsample()
        self.conv = ModulatedConv2d(inputs, 3, 1, LATENT, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, latent: Tensor, source: Tensor, below: Tensor | None) -> Level:
        """x [B, C, R, R], latent [B, 512], source [1 or B, C, R, R], the raw map of the level below or None."""
        with torch.autocast(x.device.type, enabled=False):  # positions require float32
            x, source = x.float(), source.float()
            raw = self.conv(x, latent) + self.bias
            if below is not None:
                raw = raw + self.upsample(below)
            batch, _, side, _ = raw.shape
            line = torch.linspace(-1, 1, side, device=x.device)
            grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
            flow = torch.tanh(raw[:, :2]).permute(0, 2, 3, 1) + grid
            mask = torch.sigmoid(raw[:, 2:])
            warped = F.grid_sample(source.expand(batch, -1, -1, -1), flow, align_corners=False) * mask
            return Level(warped + (1 - mask) * x, warped, raw)


class Synthesis(nn.Module):
    """A latent and the feature maps of a source -> an image."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = Direction()
        self.input = Constant()
        self.conv1 = StyledConv(WIDTHS[4], WIDTHS[4])
        self.to_rgb1 = ToRGB(WIDTHS[4], upsample=False)  # in the checkpoint, but never used
        self.convs, self.to_rgbs, self.to_flows = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        sides = sorted(WIDTHS)
        for half, side in pairwise(sides):
            inputs, outputs = WIDTHS[half], WIDTHS[side]
            self.convs += [StyledConv(inputs, outputs, upsample=True), StyledConv(outputs, outputs)]
            self.to_rgbs.append(ToRGB(outputs))
            self.to_flows.append(ToFlow(outputs))

    def forward(self, latent: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """latent [B, 512], maps of one source ([1, ...]) or of B -> [B, 3, 256, 256], about -1..1, without clipping."""
        x = self.conv1(self.input.input.expand(latent.shape[0], -1, -1, -1), latent)
        raw: Tensor | None = None
        picture: Tensor | None = None
        for level, source in enumerate(maps):
            x = self.convs[2 * level](x, latent)
            x = self.convs[2 * level + 1](x, latent)
            x, warped, raw = self.to_flows[level](x, latent, source, raw)
            picture = self.to_rgbs[level](warped, picture)
        assert picture is not None
        return picture


class Source(NamedTuple):
    """The encoding of a source image: latent [1, 512], magnitudes [1, 20], and feature maps, 8 x 8 first."""

    latent: Tensor
    alpha: Tensor
    maps: list[Tensor]


class LIA(nn.Module):
    """The generator of a LIA checkpoint. Images are float [B, 3, 256, 256] in -1..1, RGB."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = Encoder()
        self.dec = Synthesis()

    def encode_source(self, image: Tensor) -> Source:
        """Encode an image [1, 3, 256, 256] once, for any number of frames."""
        latent, maps = self.enc.net_app(image)
        return Source(latent, self.enc.fc(latent), maps)

    def alphas(self, images: Tensor) -> Tensor:
        """Magnitudes [B, 20] of images [B, 3, 256, 256] along the directions of motion."""
        magnitudes: Tensor = self.enc.fc(self.enc.net_app(images)[0])
        return magnitudes

    def latents(self, source: Source, alpha: Tensor, basis: Tensor, first: Tensor | None = None) -> Tensor:
        """Target latents [B, 512]: the source's, displaced by the driving `alpha` [B, 20] (absolute), or with `first`
        [1, 20], the magnitudes of the first driving frame, by the change of `alpha` since then added to the source's
        magnitudes (relative)."""
        if first is not None:
            alpha = alpha - first + source.alpha
        return source.latent + alpha @ basis.mT
