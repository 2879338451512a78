"""The encoders of HyperReenact: an IR-SE network for identity (ArcFace) and for inversion (e4e), a ResNet-50 for pose.

Parameters are named as in the published files. All run in evaluation mode on float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.stylegan2 import EqualLinear

__all__ = ["E4E", "ArcFaceIRSE", "DecaEncoder"]

STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))
"""Input and output channels and number of blocks, of the 24 blocks of a 50-layer IR-SE network."""
TAPS = (6, 20, 23)
"""Blocks whose outputs e4e uses: 128 channels at side 64, 256 at 32, 512 at 16."""
STYLES = 14


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * weight.sigmoid()


class _Block(nn.Module):
    """Norm, convolution, PReLU, convolution, norm, squeeze-and-excite, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            narrow = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(narrow, nn.BatchNorm2d(outputs))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            _SqueezeExcite(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class _IRSE50(nn.Module):
    """The trunk: [B, 3, S, S] -> 512 channels at side S / 16."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.body = nn.Sequential(
            *(
                _Block(inputs if first else outputs, outputs, 2 if first else 1)
                for inputs, outputs, count in STAGES
                for first in (index == 0 for index in range(count))
            )
        )

    def taps(self, x: Tensor) -> list[Tensor]:
        """The outputs of the blocks in `TAPS`."""
        x, outputs = self.input_layer(x), []
        for index, block in enumerate(self.body):
            x = block(x)
            if index in TAPS:
                outputs.append(x)
        return outputs


class ArcFaceIRSE(_IRSE50):
    """Appearance: aligned faces [B, 3, 112, 112] in -1..1 -> [B, 512, 7, 7]; `identity` returns the unit vector."""

    def __init__(self) -> None:
        super().__init__()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.taps(x)[-1]

    def identity(self, features: Tensor) -> Tensor:
        """Unit vectors [B, 512] from features [B, 512, 7, 7]. Not used by the transfer."""
        return F.normalize(self.output_layer(features))


class _StyleHead(nn.Module):
    """Halve the size down to one pixel, then apply a linear layer whose weights are scaled when used."""

    def __init__(self, halvings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [nn.Conv2d(512, 512, 3, 2, 1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(512, 512)

    def forward(self, x: Tensor) -> Tensor:
        latent: Tensor = self.linear(self.convs(x).flatten(1))
        return latent


class E4E(_IRSE50):
    """Inversion (Tov et al., 2021): images [B, 3, 256, 256] in -1..1 -> codes w+ [B, 14, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.styles = nn.ModuleList(_StyleHead(4 if i < 3 else 5 if i < 7 else 6) for i in range(STYLES))
        self.latlayer1, self.latlayer2 = nn.Conv2d(256, 512, 1), nn.Conv2d(128, 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        c1, c2, c3 = self.taps(x)
        p2 = _enlarged(c3, c2) + self.latlayer1(c2)
        p1 = _enlarged(p2, c1) + self.latlayer2(c1)
        maps = [c3] * 3 + [p2] * 4 + [p1] * 7
        first, *residual_styles = (head(features) for head, features in zip(self.styles, maps, strict=True))
        return torch.stack([first, *(first + residual for residual in residual_styles)], 1)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != 4 * width:
            narrow = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(narrow, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class _ResNet50(nn.Module):
    """[B, 3, 224, 224] -> [B, 2048, 7, 7] (He et al., 2016; strides in the 3 x 3 convolutions)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1, self.layer2 = _stage(64, 64, 3, 1), _stage(256, 128, 4, 2)
        self.layer3, self.layer4 = _stage(512, 256, 6, 2), _stage(1024, 512, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return out


def _stage(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(inputs, width, stride)
    return nn.Sequential(first, *(_Bottleneck(4 * width, width, 1) for _ in range(count - 1)))


class DecaEncoder(nn.Module):
    """Pose: face crops [B, 3, 224, 224] in 0..1 -> [B, 2048, 7, 7]; `parameters_of` returns DECA's 236 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _ResNet50()
        self.layers = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 236))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.encoder(x)
        return features

    def parameters_of(self, features: Tensor) -> Tensor:
        """[B, 236] from features [B, 2048, 7, 7]: shape, texture, expression, pose, camera, light of DECA (Feng et al.,
        2021). Not used by the transfer."""
        parameters: Tensor = self.layers(features.mean((2, 3)))
        return parameters
