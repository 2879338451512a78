"""Keypoints with local affine maps: positions, their maps, and motion transfer.

Coordinates are (x, y) in [-1, 1] from the centre of the first pixel to that of the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

__all__ = [
    "Keypoints",
    "coordinate_grid",
    "expected_position",
    "gaussians",
    "hull_area",
    "inverse",
    "movement_scale",
    "relative",
]


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of B images: `value` [B, K, 2] positions (x, y), `jacobian` [B, K, 2, 2] the local affine maps."""

    value: Tensor
    jacobian: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, frames: slice) -> Keypoints:
        return Keypoints(self.value[frames], self.jacobian[frames])

    @staticmethod
    def join(parts: list[Keypoints]) -> Keypoints:
        return Keypoints(torch.cat([p.value for p in parts]), torch.cat([p.jacobian for p in parts]))


def coordinate_grid(height: int, width: int, like: Tensor) -> Tensor:
    """[height, width, 2]: the (x, y) of every pixel, on the device of `like`."""
    y = torch.linspace(-1, 1, height, dtype=torch.float32, device=like.device)
    x = torch.linspace(-1, 1, width, dtype=torch.float32, device=like.device)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)


def expected_position(heat: Tensor) -> Tensor:
    """Mean position [B, K, 2] of heat maps [B, K, H, W] that sum to 1."""
    grid = coordinate_grid(heat.shape[-2], heat.shape[-1], heat)
    return heat.flatten(2) @ grid.flatten(0, 1)


def gaussians(points: Tensor, height: int, width: int, variance: float = 0.01) -> Tensor:
    """exp(-|z - p|^2 / (2 variance)) at every pixel z: [B, K, 2] -> [B, K, height, width]."""
    y = torch.linspace(-1, 1, height, dtype=torch.float32, device=points.device)
    x = torch.linspace(-1, 1, width, dtype=torch.float32, device=points.device)
    across = torch.exp((x - points[..., :1]) ** 2 / (-2 * variance))
    down = torch.exp((y - points[..., 1:]) ** 2 / (-2 * variance))
    return down[..., :, None] * across[..., None, :]


def relative(source: Keypoints, driving: Keypoints, anchor: Keypoints, scale: float = 1.0) -> Keypoints:
    """The keypoints of the source (one image), moved by the difference between the driving frames and the anchor frame.

    p = p_s + scale (p_d - p_a) and J = J_d J_a^-1 J_s. `scale` is 1 or `movement_scale`.
    """
    value = source.value + scale * (driving.value - anchor.value)
    return Keypoints(value, driving.jacobian @ inverse(anchor.jacobian) @ source.jacobian)


def inverse(matrix: Tensor) -> Tensor:
    """Inverse of [..., 2, 2], written out to avoid waiting for the device to check that it exists."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return adjugate / (a * d - b * c)[..., None, None]


def movement_scale(source: Keypoints, anchor: Keypoints) -> float:
    """Ratio of the sizes of the source's face and the anchor frame's: the square root of the ratio of their hull
    areas."""
    return float(np.sqrt(hull_area(source.value[0])) / np.sqrt(hull_area(anchor.value[0])))


def hull_area(points: Tensor) -> float:
    """The area of the convex hull of points [K, 2]. Raises `ValueError` if they are collinear."""
    try:
        return float(ConvexHull(points.double().cpu().numpy()).volume)
    except QhullError:
        raise ValueError("the keypoints are collinear, so the movement scale is undefined") from None
