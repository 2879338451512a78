"""Square face crops, cut from an image and pasted back: LivePortrait's similarity transforms.

Points are in pixels, x first; matrices are 3 x 3 and act on (x, y, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "LAYOUT_68",
    "LAYOUT_106",
    "LAYOUT_203",
    "SIDE",
    "Layout",
    "average_box",
    "box_matrix",
    "crop_matrix",
    "driving_box",
    "fade_mask",
    "opening",
    "paste",
    "warp",
]

Points = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

SIDE = 512
"""Side of a crop in pixels."""
SOURCE_SCALE, SOURCE_RAISED = 2.3, 0.125
DRIVING_SCALE, DRIVING_RAISED = 2.2, 0.1
"""Side of a crop relative to the longer side of the points' box, and offset of its centre above theirs, in sides."""
FADE = 16
"""Width in pixels of the border over which a crop is blended into its picture."""


@dataclass(frozen=True)
class Layout:
    """Indices of the eye and mouth points in a landmark set; the mean of its points is the position of an eye or the
    mouth."""

    left_eye: tuple[int, ...]
    right_eye: tuple[int, ...]
    mouth: tuple[int, ...]


LAYOUT_203 = Layout((0, 6, 12, 18), (24, 30, 36, 42), (48, 66))
LAYOUT_106 = Layout((33, 35, 40, 39), (87, 89, 94, 93), (52, 61))
LAYOUT_68 = Layout(tuple(range(36, 42)), tuple(range(42, 48)), (48, 54))


def _axes(points: Points, layout: Layout) -> Points:
    """Rows: the unit vectors to the right and down of the face."""
    left, right, mouth = (points[list(part)].mean(axis=0) for part in (layout.left_eye, layout.right_eye, layout.mouth))
    down = mouth - (left + right) / 2
    length = float(np.linalg.norm(down))
    down = np.array([0.0, 1.0]) if length < 1e-3 else down / length
    return np.array([[down[1], -down[0]], down])


def _square(points: Points, layout: Layout, scale: float, raised: float) -> tuple[Points, float, Points]:
    """Centre, side and axes of the square around points [N, 2], aligned with the face."""
    points = np.asarray(points, np.float64)
    axes = _axes(points, layout)
    middle = points.mean(axis=0)
    turned = (points - middle) @ axes.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    side = float((high - low).max()) * scale
    centre = middle + ((low + high) / 2) @ axes - raised * side * axes[1]
    return centre, side, axes


def crop_matrix(
    points: Points, layout: Layout, *, scale: float = SOURCE_SCALE, raised: float = SOURCE_RAISED, side: int = SIDE
) -> Matrix:
    """Map from the image to the crop, with the face upright in a square of `side` pixels. float32[3, 3]."""
    centre, extent, axes = _square(points, layout, scale, raised)
    factor = side / extent
    matrix = np.eye(3)
    matrix[:2, :2] = factor * axes
    matrix[:2, 2] = side / 2 - factor * axes @ centre
    return matrix.astype(np.float32)


def driving_box(points: Points, layout: Layout) -> Points:
    """The square of one driving frame as (left, top, right, bottom): sized along the face's axes, but itself
    upright."""
    centre, side, _ = _square(points, layout, DRIVING_SCALE, DRIVING_RAISED)
    return np.concatenate([centre - side / 2, centre + side / 2])


def average_box(boxes: Points) -> Points:
    """One box for a clip, the mean of its frames' boxes [T, 4]."""
    mean: Points = np.asarray(boxes, np.float64).mean(axis=0)
    return mean


def box_matrix(box: Points, side: int = SIDE) -> Matrix:
    """Map from the image to an upright crop of the square `box`. float32[3, 3]."""
    factor = side / (box[2] - box[0])
    centre = (box[:2] + box[2:]) / 2
    matrix = np.diag([factor, factor, 1.0])
    matrix[:2, 2] = side / 2 - factor * centre
    return matrix.astype(np.float32)


def warp(images: Tensor, matrix: Matrix, size: tuple[int, int]) -> Tensor:
    """Warp images float [B, C, H, W] by `matrix` (old to new pixels) to a canvas of `size`; bilinear, black outside."""
    height, width = images.shape[-2:]
    back = np.linalg.inv(np.asarray(matrix, np.float64))
    rows, columns = np.mgrid[: size[0], : size[1]]
    positions = np.stack([columns, rows], axis=-1) @ back[:2, :2].T + back[:2, 2]
    # corner-aligned: -1 and 1 are the centres of the outermost pixels
    grid = positions * (2 / np.array([max(width - 1, 1), max(height - 1, 1)])) - 1
    laid = torch.from_numpy(grid.astype(np.float32)).to(images.device)
    return F.grid_sample(images, laid.expand(len(images), -1, -1, -1), align_corners=True)


def paste(crops: Tensor, picture: Tensor, matrix: Matrix) -> Tensor:
    """Blend crops float [B, 3, 512, 512] in whole grey levels into the image [1, 3, H, W] from which they were cut by
    `matrix`: [B, 3, H, W], not rounded."""
    height, width = picture.shape[-2:]
    back = np.linalg.inv(np.asarray(matrix, np.float64)).astype(np.float32)
    mask = warp(fade_mask().to(crops.device), back, (height, width)).round() / 255
    warped = warp(crops, back, (height, width)).round()
    return mask * warped + (1 - mask) * picture


@lru_cache(maxsize=1)
def fade_mask() -> Tensor:
    """float32[1, 1, 512, 512], 255 inside and falling to 0 over the border, rounded at the corners."""
    position = np.arange(SIDE)
    near = np.maximum(0, FADE - np.minimum(position, SIDE - position))
    distance = np.hypot(near[:, None], near[None, :])
    levels = np.floor(255 * np.clip((FADE - distance) / FADE, 0, 1))
    return torch.from_numpy(levels.astype(np.float32))[None, None]


def opening(points: Points, upper: int, lower: int, left: int, right: int) -> float:
    """Aspect ratio (height / width) of an open mouth or eye, from points [N, 2] by their indices."""
    height = float(np.linalg.norm(points[upper] - points[lower]))
    return height / (float(np.linalg.norm(points[left] - points[right])) + 1e-6)
