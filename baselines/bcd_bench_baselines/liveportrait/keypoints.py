"""Keypoints of LivePortrait: pose and expression of one face applied to the canonical points of another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "POINTS",
    "REGIONS",
    "Motion",
    "Region",
    "absolute_keypoints",
    "degrees_of_bins",
    "exaggeration",
    "keypoints",
    "relative_keypoints",
    "rotation_matrix",
]

POINTS = 21
Region = Literal["all", "exp", "pose", "lip", "eyes"]
REGIONS: tuple[str, ...] = get_args(Region)
LIP_POINTS = (6, 12, 14, 17, 19, 20)
EYE_POINTS = (11, 13, 15, 16, 18)


@dataclass(frozen=True)
class Motion:
    """Predicted motion of B images: angles in degrees and scale [B, 1], t [B, 3], exp and kp [B, 21, 3]."""

    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    exp: Tensor
    scale: Tensor
    kp: Tensor

    @property
    def rotation(self) -> Tensor:
        """Rotation [B, 3, 3], for row vectors."""
        return rotation_matrix(self.pitch, self.yaw, self.roll)

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, index: slice) -> Motion:
        return Motion(**{name: value[index] for name, value in vars(self).items()})

    @staticmethod
    def cat(parts: list[Motion]) -> Motion:
        """Concatenate the images of all parts, in order."""
        return Motion(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def degrees_of_bins(logits: Tensor) -> Tensor:
    """Expected angle in degrees [B, 1] of logits [B, 66]; bins are 3 degrees wide, the first is at -97.5."""
    index = torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)
    return 3 * (logits.float().softmax(dim=1) * index).sum(dim=1, keepdim=True) - 97.5


def rotation_matrix(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """(Rz(roll) Ry(yaw) Rx(pitch))' of angles in degrees [B, 1]: [B, 3, 3], for row vectors."""
    x, y, z = (angle[:, 0] * (math.pi / 180) for angle in (pitch, yaw, roll))
    zero, one = torch.zeros_like(x), torch.ones_like(x)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=1).reshape(-1, 3, 3)

    about_x = matrix(one, zero, zero, zero, x.cos(), -x.sin(), zero, x.sin(), x.cos())
    about_y = matrix(y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos())
    about_z = matrix(z.cos(), -z.sin(), zero, z.sin(), z.cos(), zero, zero, zero, one)
    return (about_z @ about_y @ about_x).mT


def place(kp: Tensor, rotation: Tensor, exp: Tensor, scale: Tensor, t: Tensor) -> Tensor:
    """scale (kp R + exp) + (t_x, t_y, 0): keypoints [B, 21, 3]; t's third coordinate is not used."""
    flat = t * torch.tensor([1.0, 1.0, 0.0], device=t.device)
    return scale[:, :, None] * (kp @ rotation + exp) + flat[:, None]


def keypoints(motion: Motion) -> Tensor:
    """A face's keypoints x_s [B, 21, 3] in its own pose."""
    return place(motion.kp, motion.rotation, motion.exp, motion.scale, motion.t)


def exaggeration(x_s: Tensor, x_0: Tensor) -> float:
    """Ratio of the sizes of the source's point cloud and the first driving one, both [1, 21, 3].

    The square root of the ratio of the volumes of their convex hulls.
    """
    from scipy.spatial import ConvexHull

    source, first = (ConvexHull(x[0].double().cpu().numpy()).volume for x in (x_s, x_0))
    return float(np.sqrt(source) / np.sqrt(first))


def relative_keypoints(source: Motion, driving: Motion, first: Motion, region: Region = "all") -> Tensor:
    """The source [1] moved by the driving motion since its first frame; before stitching, [B, 21, 3].

    `region` restricts the motion: "exp" to the expression, "pose" to the rotation and translation of the head, "lip"
    and "eyes" to the expression of their points.
    """
    rotation, exp, scale, t = source.rotation, source.exp, source.scale, source.t
    if region in ("all", "pose"):
        rotation = driving.rotation @ first.rotation.mT @ rotation
        t = t + (driving.t - first.t)
    if region == "all":
        scale = scale * (driving.scale / first.scale)
    if region != "pose":
        change = driving.exp - first.exp
        indices = {"lip": LIP_POINTS, "eyes": EYE_POINTS}.get(region)
        if indices is not None:
            mask = torch.zeros(POINTS, 1, device=change.device)
            mask[list(indices)] = 1
            change = change * mask
        exp = exp + change
    return _placed(source, len(driving), rotation, exp, scale, t)


def absolute_keypoints(source: Motion, driving: Motion) -> Tensor:
    """The source's points in the driving pose, with the driving expression as far as it transfers across people."""
    mask = torch.zeros(POINTS, 3, device=driving.exp.device)
    mask[[1, 2, 6, *range(11, 21)]] = 1
    mask[[3, 4], 1] = 1
    mask[[5, 8], 2] = 1
    mask[9, 1:] = 1
    exp = torch.where(mask.bool(), driving.exp, source.exp)
    return _placed(source, len(driving), driving.rotation, exp, source.scale, driving.t)


def _placed(source: Motion, count: int, rotation: Tensor, exp: Tensor, scale: Tensor, t: Tensor) -> Tensor:
    rotation, exp, t = rotation.expand(count, -1, -1), exp.expand(count, -1, -1), t.expand(count, -1)
    return place(source.kp.expand(count, -1, -1), rotation, exp, scale.expand(count, -1), t)
