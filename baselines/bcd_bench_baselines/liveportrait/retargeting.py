"""S of LivePortrait: small networks that move keypoints. Parameters as in `stitching_retargeting_module.pth`."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bcd_bench_baselines.liveportrait.keypoints import POINTS

__all__ = ["Retargeting"]


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(x)
        return out


class Retargeting(nn.Module):
    """Stitching, and the changes of lips and eyes towards a target opening."""

    def __init__(self) -> None:
        super().__init__()
        self.retarget_shoulder = Perceptron(6 * POINTS, 128, 128, 64, 3 * POINTS + 2)
        self.retarget_mouth = Perceptron(3 * POINTS + 2, 128, 128, 64, 3 * POINTS)
        self.retarget_eye = Perceptron(3 * POINTS + 3, 256, 256, 128, 128, 64, 3 * POINTS)

    def stitch(self, x_s: Tensor, x_d: Tensor) -> Tensor:
        """x_d [B, 21, 3] adjusted so that shoulders and neck stay as in x_s [1 or B, 21, 3]."""
        both = torch.cat([x_s.expand_as(x_d).flatten(1), x_d.flatten(1)], dim=1)
        moves = self.retarget_shoulder(both)
        delta, shift = moves[:, : 3 * POINTS].unflatten(1, (POINTS, 3)), moves[:, None, 3 * POINTS :]
        return x_d + delta + nn.functional.pad(shift, (0, 1))

    def lips(self, x_s: Tensor, ratio: Tensor, wanted: Tensor) -> Tensor:
        """Offset of keypoints [B, 21, 3] that changes the opening of the lips from `ratio` to `wanted`, both [B, 1]."""
        change: Tensor = self.retarget_mouth(torch.cat([x_s.flatten(1), ratio, wanted], dim=1))
        return change.unflatten(1, (POINTS, 3))

    def eyes(self, x_s: Tensor, ratios: Tensor, wanted: Tensor) -> Tensor:
        """The same for eyes: `ratios` [B, 2] of the left and the right eye, `wanted` [B, 1] for both."""
        change: Tensor = self.retarget_eye(torch.cat([x_s.flatten(1), ratios, wanted], dim=1))
        return change.unflatten(1, (POINTS, 3))
