"""M of LivePortrait: an image to canonical keypoints, pose and expression. Parameters as in `motion_extractor.pth`.

The backbone is ConvNeXt V2, tiny (Woo et al., 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.liveportrait.keypoints import POINTS, Motion, degrees_of_bins

__all__ = ["MotionExtractor", "motion_of"]

DEPTHS = (3, 3, 9, 3)
DIMS = (96, 192, 384, 768)
BINS = 66
EPSILON = 1e-6


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, EPSILON).permute(
            0, 3, 1, 2
        )


class GlobalResponseNorm(nn.Module):
    """Strengthens channels with a larger response than the others over the whole image; [B, H, W, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        strength = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = strength / (strength.mean(dim=-1, keepdim=True) + EPSILON)
        return self.gamma * (x * relative) + self.beta + x


class Block(nn.Module):
    """Depthwise 7 x 7 convolution, then two pointwise layers, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = GlobalResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(F.gelu(self.pwconv1(y))))
        return x + y.permute(0, 3, 1, 2)


class Detector(nn.Module):
    """The backbone with its heads."""

    def __init__(self) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, DIMS[0], 4, stride=4), ChannelNorm(DIMS[0]))]
        )
        for inputs, outputs in pairwise(DIMS):
            self.downsample_layers.append(nn.Sequential(ChannelNorm(inputs), nn.Conv2d(inputs, outputs, 2, stride=2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth))) for depth, width in zip(DEPTHS, DIMS, strict=True)
        )
        self.norm = nn.LayerNorm(DIMS[-1], EPSILON)
        self.fc_kp = nn.Linear(DIMS[-1], 3 * POINTS)
        self.fc_scale = nn.Linear(DIMS[-1], 1)
        self.fc_pitch = nn.Linear(DIMS[-1], BINS)
        self.fc_yaw = nn.Linear(DIMS[-1], BINS)
        self.fc_roll = nn.Linear(DIMS[-1], BINS)
        self.fc_t = nn.Linear(DIMS[-1], 3)
        self.fc_exp = nn.Linear(DIMS[-1], 3 * POINTS)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The outputs of the heads by name: `pitch`, `yaw` and `roll` are 66 logits each."""
        x = image
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        x = self.norm(x.mean(dim=(2, 3)))
        names = ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")
        return {name: getattr(self, f"fc_{name}")(x).float() for name in names}


class MotionExtractor(nn.Module):
    """RGB [B, 3, 256, 256] in 0..1 -> `Motion` of B images."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = Detector()

    def forward(self, image: Tensor) -> Motion:
        return motion_of(self.detector(image))


def motion_of(heads: Mapping[str, Tensor]) -> Motion:
    """Convert the outputs of `Detector`'s heads to angles and points."""
    return Motion(
        pitch=degrees_of_bins(heads["pitch"]),
        yaw=degrees_of_bins(heads["yaw"]),
        roll=degrees_of_bins(heads["roll"]),
        t=heads["t"],
        exp=heads["exp"].unflatten(1, (POINTS, 3)),
        scale=heads["scale"],
        kp=heads["kp"].unflatten(1, (POINTS, 3)),
    )
