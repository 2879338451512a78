"""A shell of hair around the skull: a grid of azimuth and distance from the crown that follows the head's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from bcd_bench_faces.head_model.model import HeadModel

__all__ = ["AROUND", "CENTRE", "DOWN", "HANGS_FROM", "HairShell", "hair_shell"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

AROUND: Final = 96
"""Columns of the grid: azimuth from the back over the wearer's right, the front and the left to the back again."""
DOWN: Final = 40
"""Rows: from the crown over the skull (the first `HANGS_FROM`), then straight down."""
HANGS_FROM: Final = 26
CENTRE: Final = np.array([0.0, -8.0, 88.0])
"""The centre of the skull, in mm of the model."""
_STEEPEST = np.radians(102.0)
_HANG = 16.0
"""Vertical distance between consecutive hanging rows, in mm."""
_NEIGHBOURS = 12


@dataclass(frozen=True, eq=False)
class HairShell:
    """The shell on the mean head; H = (AROUND + 1) * DOWN vertices."""

    vertices: Floats
    """float32[H, 3]: on the scalp, with zero thickness."""
    outward: Floats
    """float32[H, 3]: unit directions in which thickness is added."""
    faces: Ints
    grid: Floats
    """float32[H, 2]: azimuth in radians (0 in front, positive to the right of the picture), and row 0..1."""
    anchors: Ints
    """int32[H, 12]: the vertices of the bust that a vertex follows; `shares` float32[H, 12] are their weights."""
    shares: Floats
    skinning: Floats

    def worn(self, offsets: Floats, thickness: Floats) -> Floats:
        """The shell [H, 3] on a person whose bust differs from the mean by `offsets` [N, 3], `thickness` [H] in mm."""
        moved = np.einsum("hk,hkd->hd", self.shares, offsets[self.anchors])
        return np.asarray(self.vertices + moved + self.outward * thickness[:, None], np.float32)


def hair_shell(model: HeadModel) -> HairShell:
    """Wrap the grid around the skull of the mean head."""
    skin = np.unique(model.faces[model.labels == 0])
    skull = skin[(model.bust_mean[skin, 1] < 70) & (model.skinning[skin, 0] > 0.9)]
    rays = model.bust_mean[skull] - CENTRE
    radius = np.linalg.norm(rays, axis=1)
    azimuth = np.linspace(-np.pi, np.pi, AROUND + 1)
    row = np.arange(DOWN)
    polar = np.minimum(row / (HANGS_FROM - 1), 1.0) * _STEEPEST
    a, p = np.meshgrid(azimuth, polar)
    direction = np.stack([np.sin(p) * np.sin(a), -np.cos(p), -np.sin(p) * np.cos(a)], axis=-1).reshape(-1, 3)
    # A soft maximum of the radius nearby: ears have a low weight, since they are few vertices far from the scalp.
    near_ear = np.abs(model.bust_mean[skull, 0]) > 76.0
    close = direction @ (rays / radius[:, None]).T
    weight = np.exp((close - 1) / 0.006) * np.where(near_ear, 0.02, 1.0)
    reach = (weight * radius).sum(1) / weight.sum(1)
    vertices = CENTRE + direction * reach[:, None]
    hang = np.maximum(row - (HANGS_FROM - 1), 0).repeat(AROUND + 1) * _HANG
    vertices[:, 1] += hang
    outward = direction.copy()
    outward[:, 1] = np.where(hang > 0, 0.0, outward[:, 1])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)

    root = vertices - np.stack([np.zeros_like(hang), hang, np.zeros_like(hang)], axis=1)
    distance, index = cKDTree(model.bust_mean[skull]).query(root, _NEIGHBOURS)
    shares = np.exp(-(((distance - distance[:, :1]) / 12.0) ** 2))
    shares /= shares.sum(1, keepdims=True)
    head = 1.0 - 0.35 * np.clip(hang / (_HANG * (DOWN - HANGS_FROM)), 0, 1)
    i, j = (part.ravel() for part in np.meshgrid(np.arange(DOWN - 1), np.arange(AROUND), indexing="ij"))
    at = i * (AROUND + 1) + j
    faces = np.concatenate(
        [np.stack([at, at + 1, at + AROUND + 1], 1), np.stack([at + 1, at + AROUND + 2, at + AROUND + 1], 1)]
    )
    return HairShell(
        vertices=vertices.astype(np.float32),
        outward=outward.astype(np.float32),
        faces=faces.astype(np.int32),
        grid=np.stack([a.ravel(), row.repeat(AROUND + 1) / (DOWN - 1)], axis=1).astype(np.float32),
        anchors=skull[index].astype(np.int32),
        shares=shares.astype(np.float32),
        skinning=np.stack([head, np.zeros_like(head)], axis=1).astype(np.float32),
    )
