"""The square around a face that the network processes, and affine maps between it and the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["MARGIN", "Square", "square_around", "take"]

Floats = npt.NDArray[np.floating]
MARGIN: Final = 1.2
"""Side of the square relative to the longer side of the box around the points."""


@dataclass(frozen=True)
class Square:
    """An axis-aligned square of a picture: its centre and side in pixels; pixel (0, 0) covers 0..1."""

    x: float
    y: float
    side: float

    def to_picture(self, points: Floats, size: int) -> Floats:
        """Map points [..., 2] from a crop `size` pixels wide to pixels of the picture."""
        corner = np.array([self.x, self.y]) - self.side / 2
        return np.asarray(points * (self.side / size) + corner)


def square_around(points: Floats) -> Square:
    """The square around points [N, 2]."""
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = (low + high) / 2
    return Square(float(x), float(y), float(MARGIN * (high - low).max()))


def take(picture: npt.NDArray[np.uint8], square: Square, size: int) -> npt.NDArray[np.uint8]:
    """Crop the square of a picture [H, W, 3] to uint8[size, size, 3], averaging pixels when it is reduced.

    Areas beyond the picture repeat its edge.
    """
    import cv2

    scale = size / square.side
    if scale < 0.6:  # bilinear sampling would skip pixels: reduce the picture first, by area averaging
        height, width = picture.shape[:2]
        smaller = (max(1, round(width * scale * 1.25)), max(1, round(height * scale * 1.25)))
        zoom = np.array([smaller[0] / width, smaller[1] / height])
        picture = np.asarray(cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA), np.uint8)
    else:
        zoom = np.ones(2)
    stretch = scale / zoom
    corner = np.array([square.x, square.y]) - square.side / 2
    # OpenCV puts pixel centres at whole numbers
    offset = (0.5 / zoom - corner) * scale - 0.5
    matrix = np.array([[stretch[0], 0, offset[0]], [0, stretch[1], offset[1]]])
    crop = cv2.warpAffine(
        np.ascontiguousarray(picture), matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(crop, np.uint8)
