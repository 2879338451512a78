"""W of LivePortrait: warps the source's features to the moved keypoints. Parameters as in `warping_module.pth`."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd_bench_baselines.common.blocks import Hourglass
from bcd_bench_baselines.common.fourier_conv import FourierConv3d
from bcd_bench_baselines.liveportrait.appearance import CHANNELS, DEPTH
from bcd_bench_baselines.liveportrait.keypoints import POINTS

__all__ = ["DenseMotion", "Warped", "Warping"]

COMPRESSED = 4
SPREAD = 0.01
"""Variance of the Gaussian around a keypoint, in grid units (-1..1)."""
WIDTH, BLOCKS, MOST = 32, 5, 1024
"""Sizes of the hourglass."""


class Dense(NamedTuple):
    """deformation [B, D, H, W, 3] (x, y, z in -1..1), mask [B, 22, D, H, W], occlusion [B, 1, H, W]."""

    deformation: Tensor
    mask: Tensor
    occlusion: Tensor


def coordinates(depth: int, height: int, width: int, device: torch.device) -> Tensor:
    """The corner-aligned grid [D, H, W, 3] of (x, y, z) in -1..1."""
    z, y, x = (torch.linspace(-1, 1, count, device=device) for count in (depth, height, width))
    return torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1)


class DenseMotion(nn.Module):
    """Sparse keypoints to a 3-D flow field: a soft selection among 22 rigid translations at each position."""

    def __init__(self) -> None:
        super().__init__()
        shifts = POINTS + 1
        inputs = shifts * (COMPRESSED + 1)
        self.hourglass = Hourglass(WIDTH, inputs, BLOCKS, MOST, dims=3, last=True)
        channels = self.hourglass.channels_out
        self.mask = FourierConv3d(channels, shifts, 7)
        self.compress = nn.Conv3d(CHANNELS, COMPRESSED, 1)
        self.norm = nn.BatchNorm3d(COMPRESSED)
        self.occlusion = nn.Conv2d(channels * DEPTH, 1, 7, padding=3)

    def forward(self, features: Tensor, x_d: Tensor, x_s: Tensor) -> Dense:
        """features [1 or B, 32, 16, 64, 64], keypoints x_d and x_s [B, 21, 3]."""
        batch = len(x_d)
        compressed = F.relu(self.norm(self.compress(features))).float()
        depth, height, width = compressed.shape[2:]
        grid = coordinates(depth, height, width, x_d.device)
        # T_k(z) = z - x_d + x_s, and T_0(z) = z
        shift = F.pad(x_s - x_d, (0, 0, 1, 0))
        positions = grid + shift[:, :, None, None, None, :]
        sampled = sample_many(compressed, positions)
        heat = F.pad(gaussians(grid, x_d) - gaussians(grid, x_s), (0, 0, 0, 0, 0, 0, 1, 0))
        x = torch.cat([heat[:, :, None], sampled], dim=2).flatten(1, 2)
        x = self.hourglass(x)
        mask = self.mask(x).softmax(dim=1)
        # The masks sum to 1, so that the mean of all T_k is z plus the mean of all shifts. No matrix product: positions
        # require float32 even where products are computed in bfloat16.
        deformation = grid + (mask[..., None] * shift[:, :, None, None, None]).sum(dim=1)
        occlusion = torch.sigmoid(self.occlusion(x.reshape(batch, -1, height, width)).float())
        return Dense(deformation, mask, occlusion)


def gaussians(grid: Tensor, points: Tensor) -> Tensor:
    """A Gaussian around each point [B, K, 3] on a grid [D, H, W, 3]: [B, K, D, H, W]."""
    # |z - x|^2 separates into its axes, whose exponentials are multiplied
    axes = (grid[0, 0, :, 0], grid[0, :, 0, 1], grid[:, 0, 0, 2])
    x, y, z = (torch.exp((axis - points[..., i, None]).square() / (-2 * SPREAD)) for i, axis in enumerate(axes))
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


def sample_many(volume: Tensor, places: Tensor) -> Tensor:
    """Trilinear samples of [1 or B, C, D, H, W] at places [B, K, D, H, W, 3] (zeros outside): [B, K, C, D, H, W].

    The K grids are concatenated along the depth, so that no volume is copied.
    """
    batch, count, depth = places.shape[:3]
    grid = places.flatten(0, 2)[None] if len(volume) == 1 else places.flatten(1, 2)
    out = F.grid_sample(volume, grid, align_corners=False)
    if len(volume) == 1:
        return out[0].unflatten(1, (batch, count, depth)).permute(1, 2, 0, 3, 4, 5)
    return out.unflatten(2, (count, depth)).transpose(1, 2)


class LeakyBlock(nn.Module):
    """Convolution 3 x 3, batch norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.01)


class Warped(NamedTuple):
    """The generator's input [B, 256, 64, 64], and the flow field that it was warped by."""

    features: Tensor
    dense: Dense


class Warping(nn.Module):
    """Features of the source [1 or B, 32, 16, 64, 64] and keypoints [B, 21, 3] -> features of the target."""

    def __init__(self) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotion()
        self.third = LeakyBlock(CHANNELS * DEPTH, 256)
        self.fourth = nn.Conv2d(256, 256, 1)

    def forward(self, features: Tensor, x_d: Tensor, x_s: Tensor) -> Warped:
        x_s = x_s.expand_as(x_d)
        dense = self.dense_motion_network(features, x_d, x_s)
        moved = sample_many(features.float(), dense.deformation[:, None])[:, 0]
        return Warped(self.fourth(self.third(moved.flatten(1, 2))) * dense.occlusion, dense)
