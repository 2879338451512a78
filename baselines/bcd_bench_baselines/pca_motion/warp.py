"""Warp an image by a mesh: Delaunay triangles over the source, and compiled loops that fill their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["FaceMesh", "mouth_opening", "newly_open", "warp"]

Floats = npt.NDArray[np.float64]

OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The outline of the face in MediaPipe's mesh."""
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
HALO = ((1.3, 0.35), (1.65, 0.9))
"""Rings around the outline that move with the head (hair, ears, neck): relative width, and distance behind the face,
both in units of the face."""
BORDER = 8
"""Pinned points along each side of the picture."""
CAVITY = 0.35
"""Brightness of the cavity of an opened mouth, relative to the colour of the lips."""
CLOSED = 0.01
"""Area of the mouth's opening, in units of the face, below which it counts as closed."""
BEHIND = 1e6
"""Depth of the pinned border, behind every face."""


@dataclass(frozen=True)
class FaceMesh:
    """The mesh over one source image: landmarks inside it, rings around the face, and the pinned border."""

    picture: npt.NDArray[np.uint8]
    """uint8[H, W, 3] RGB"""
    source: Floats
    """float64[M, 2] in pixels"""
    triangles: npt.NDArray[np.int32]
    """int32[F, 3]"""
    mouth: npt.NDArray[np.bool_]
    """bool[F]: triangles between the inner lips"""
    halo: Floats
    """float64[G, N]: rings as weighted sums of landmarks"""
    inside: npt.NDArray[np.intp]
    """Landmarks and ring points (in this order) inside the image"""
    cavity: Floats
    """float64[3] in grey levels"""

    @classmethod
    def build(cls, picture: npt.NDArray[np.uint8], landmarks: Floats, rotation: Floats, scale: float) -> FaceMesh:
        """Build the mesh of an image uint8[H, W, 3] with landmarks float64[N, 3], whose head has the given `rotation`.

        Raises ValueError if fewer than half of the landmarks are inside the image.
        """
        from scipy.spatial import Delaunay

        height, width = picture.shape[:2]
        halo = _halo(len(landmarks))
        ring = _ring(landmarks, halo, rotation, scale)
        points = np.concatenate([landmarks, ring])[:, :2]
        within = np.asarray(((points >= 1) & (points <= [width - 1, height - 1])).all(1))
        hidden = Delaunay(landmarks[:, :2]).find_simplex(ring[:, :2]) >= 0  # behind the face, not visible
        within[len(landmarks) :] &= ~hidden
        if within[: len(landmarks)].mean() < 0.5:
            raise ValueError("most of the face is outside the content frame")
        inside = np.flatnonzero(within)
        source = np.concatenate([points[inside], _border(height, width)])
        triangles = Delaunay(source).simplices.astype(np.int32)
        lips = np.isin(np.concatenate([inside, np.full(len(source) - len(inside), -1)]), INNER_LIPS)
        at = np.clip(landmarks[list(OUTER_LIPS), :2], 0, [width - 1, height - 1]).astype(np.intp)
        cavity = CAVITY * picture[at[:, 1], at[:, 0]].astype(np.float64).mean(0)
        return cls(picture, source, triangles, lips[triangles].all(1), halo, inside, cavity)

    def bend(self, landmarks: Floats, rotation: Floats, scale: Floats, opened: Floats) -> npt.NDArray[np.uint8]:
        """uint8[T, H, W, 3]: the image with landmarks float64[T, N, 3] and head rotation float64[T, 3, 3].

        `scale` float64[T] is the size of the face in pixels, `opened` float64[T] in 0..1 the fraction of the mouth's
        opening that is not visible in the source.
        """
        height, width = self.picture.shape[:2]
        border = np.concatenate([_border(height, width), np.full((4 * BORDER, 1), BEHIND)], 1)
        frames = np.empty((len(landmarks), height, width, 3), np.uint8)
        for index, points in enumerate(landmarks):
            ring = _ring(points, self.halo, rotation[index], float(scale[index]))
            target = np.concatenate([np.concatenate([points, ring])[self.inside], border])
            dark = np.where(self.mouth, opened[index], 0.0)
            warp(self.picture, self.source, target, self.triangles, dark, self.cavity, frames[index])
        return frames


def mouth_opening(shape: Floats) -> Floats:
    """Area float64[T] between the inner lips of frontal faces float64[T, N, 3], in units of the face."""
    x, y = shape[:, INNER_LIPS, 0], shape[:, INNER_LIPS, 1]
    area = (x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1) / 2
    return np.asarray(np.maximum(area, 0.0))


def newly_open(source: float, target: Floats) -> Floats:
    """Fraction float64[T] in 0..1 of a mouth opening that did not exist in the source."""
    return np.asarray(np.clip(1 - (source + CLOSED) / (target + CLOSED), 0, 1))


def _halo(count: int) -> Floats:
    """Weights float64[2 * 36, count] that widen the outline about its mean."""
    oval = np.zeros((len(OVAL), count))
    oval[np.arange(len(OVAL)), OVAL] = 1
    return np.concatenate([factor * oval + (1 - factor) * oval.mean(0) for factor, _ in HALO])


def _ring(landmarks: Floats, halo: Floats, rotation: Floats, scale: float) -> Floats:
    """The rings float64[G, 3] of a face, shifted backwards along its viewing direction."""
    depth = np.repeat([behind for _, behind in HALO], len(OVAL))
    return np.asarray(halo @ landmarks + scale * depth[:, None] * rotation[:, 2])


def _border(height: int, width: int) -> Floats:
    """Points float64[4 * BORDER, 2] along the edges of the picture, corners included."""
    steps = np.arange(BORDER) / BORDER
    ones = np.ones(BORDER)
    x = np.concatenate([steps, ones, 1 - steps, 0 * ones])
    y = np.concatenate([0 * ones, steps, ones, 1 - steps])
    return np.stack([x * width, y * height], 1)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and cache on disk if a folder for that is writable."""
    try:
        return numba.njit(function, cache=True)  # type: ignore[no-any-return]
    except RuntimeError:  # no writable cache folder: each process compiles for itself
        return numba.njit(function)  # type: ignore[no-any-return]


@_compiled
def warp(picture, source, target, triangles, dark, cavity, out):  # type: ignore[no-untyped-def]
    """Fill `out` uint8[H, W, 3]: each pixel is sampled bilinearly from `picture` at the position given by its triangle.

    `source` float64[M, 2] and `target` float64[M, 3] (x, y, depth) are in pixels, with pixel centres at index plus 0.5.
    The nearest of several triangles is visible; flipped triangles are not. Pixels without a triangle stay in place.
    `dark` float64[F] is the weight of `cavity` float64[3].
    """
    height, width = picture.shape[0], picture.shape[1]
    depth = np.full((height, width), np.inf)
    where = np.empty((height, width, 2))
    mixed = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            where[row, column, 0], where[row, column, 1] = column + 0.5, row + 0.5
    for k in range(triangles.shape[0]):
        a, b, c = triangles[k, 0], triangles[k, 1], triangles[k, 2]
        ax, ay, bx, by, cx, cy = target[a, 0], target[a, 1], target[b, 0], target[b, 1], target[c, 0], target[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        before = (source[b, 0] - source[a, 0]) * (source[c, 1] - source[a, 1]) - (source[b, 1] - source[a, 1]) * (
            source[c, 0] - source[a, 0]
        )
        if area * before <= 1e-12:
            continue
        left, right = max(0, int(np.ceil(min(ax, bx, cx) - 0.5))), min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        top, bottom = max(0, int(np.ceil(min(ay, by, cy) - 0.5))), min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        for row in range(top, bottom + 1):
            y = row + 0.5
            for column in range(left, right + 1):
                x = column + 0.5
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                wa = 1.0 - wb - wc
                if wa < -1e-9 or wb < -1e-9 or wc < -1e-9:
                    continue
                z = wa * target[a, 2] + wb * target[b, 2] + wc * target[c, 2]
                if z < depth[row, column]:
                    depth[row, column] = z
                    where[row, column, 0] = wa * source[a, 0] + wb * source[b, 0] + wc * source[c, 0]
                    where[row, column, 1] = wa * source[a, 1] + wb * source[b, 1] + wc * source[c, 1]
                    mixed[row, column] = dark[k]
    for row in range(height):
        for column in range(width):
            x = min(max(where[row, column, 0] - 0.5, 0.0), width - 1.0)
            y = min(max(where[row, column, 1] - 0.5, 0.0), height - 1.0)
            x0, y0 = int(x), int(y)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            fx, fy, m = x - x0, y - y0, mixed[row, column]
            for channel in range(3):
                upper = (1 - fx) * picture[y0, x0, channel] + fx * picture[y0, x1, channel]
                lower = (1 - fx) * picture[y1, x0, channel] + fx * picture[y1, x1, channel]
                value = (1 - m) * ((1 - fy) * upper + fy * lower) + m * cavity[channel]
                out[row, column, channel] = np.uint8(min(max(value + 0.5, 0.0), 255.0))
