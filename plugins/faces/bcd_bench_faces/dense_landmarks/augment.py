"""Augmentation of renders before training, so that the network learns faces rather than renders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.dense_landmarks.crops import square_around

__all__ = ["Example", "example", "faceless", "photograph"]

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FACELESS = 0.08
"""Fraction of examples without a face."""
COARSE = 0.25
"""Fraction of the others that show more than the face, as in the first pass over a frame."""
BEND = 0.018
"""Standard deviation of the bending displacement, relative to the side of the crop."""


@dataclass(frozen=True)
class Example:
    """A crop uint8[side, side, 3], the positions of the points in it float32[N, 2], whether there is a face, and
    whether the crop is mirrored relative to the render."""

    crop: Bytes
    points: Floats
    face: bool
    mirrored: bool


def example(
    picture: Bytes,
    points: Floats,
    mirror: npt.NDArray[np.int32],
    other: Bytes,
    side: int,
    seed: Any,
    bend: float = 0.0,
) -> Example:
    """One example from a render and its points; part of it may be covered by `other`. `seed` determines all randomness.

    `bend` is the fraction of faces that are bent, so that the network does not memorise the few renders.
    """
    rng = np.random.default_rng(seed)
    mirrored = rng.uniform() < 0.5
    if mirrored:
        picture, points = picture[:, ::-1], points[mirror] * (-1, 1) + (picture.shape[1], 0)
    empty = rng.uniform() < FACELESS
    if empty and rng.uniform() < 0.6:
        return Example(photograph(faceless(picture, side, rng), rng), np.zeros_like(points), False, mirrored)
    square = square_around(points)
    if rng.uniform() < COARSE:
        scale, reach = rng.uniform(1.0, 2.2), 0.2
        turn = rng.normal(0, 8)
    else:
        scale, reach = np.exp(rng.normal(0, 0.08)), 0.04
        turn = rng.normal(0, 7)
    crop_side = square.side * scale
    slack = rng.normal(0, reach, 2).clip(-1.5 * reach, 1.5 * reach) * crop_side
    crop, matrix = _warp(picture, square.x + slack[0], square.y + slack[1], crop_side, turn, side, rng)
    moved = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if empty:
        return Example(photograph(_shuffled(crop, rng), rng), moved, False, mirrored)
    if bend and rng.uniform() < bend:
        crop, moved = _bent(crop, moved, rng)
    if rng.uniform() < 0.2:
        crop = _covered(crop, other, rng)
    return Example(photograph(crop, rng), moved, True, mirrored)


def _warp(
    picture: Bytes, x: float, y: float, wanted: float, turn: float, side: int, rng: np.random.Generator
) -> tuple[Bytes, npt.NDArray[np.float64]]:
    """The square around (x, y), rotated by `turn` degrees, and the matrix [2, 3] from the picture's pixels to the
    crop's."""
    import cv2

    scale = side / wanted
    if scale < 0.75:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.4 / scale), np.uint8)
    angle = np.radians(turn)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([linear, (side / 2 - linear @ (x, y))[:, None]], axis=1)
    opencv_matrix = matrix.copy()  # OpenCV puts pixel centres at whole numbers
    opencv_matrix[:, 2] += linear @ (0.5, 0.5) - 0.5
    plain = rng.uniform() < 0.3
    crop = cv2.warpAffine(
        np.ascontiguousarray(picture),
        opencv_matrix,
        (side, side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT if plain else cv2.BORDER_REPLICATE,
        borderValue=tuple(rng.uniform(0, 255, 3)),
    )
    return np.asarray(crop, np.uint8), matrix


def _bent(crop: Bytes, points: Floats, rng: np.random.Generator) -> tuple[Bytes, Floats]:
    """Apply one smooth random displacement to the crop and its points, for a face unlike any rendered one."""
    import cv2

    side, cells = len(crop), int(rng.integers(3, 6))
    coarse = (rng.standard_normal((cells, cells, 2)) * (rng.uniform(0.3, 1.5) * BEND * side)).astype(np.float32)
    shift = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    across, down = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    bent = cv2.remap(
        crop, across + shift[..., 0], down + shift[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    # the pixel at q comes from q + shift(q), so a point p moves to the q with q = p - shift(q)
    moved = points
    for _ in range(4):
        at = np.ascontiguousarray(moved - 0.5, np.float32)[None]
        moved = points - cv2.remap(shift, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    return np.asarray(bent, np.uint8), np.asarray(moved, np.float32)


def _covered(crop: Bytes, other: Bytes, rng: np.random.Generator) -> Bytes:
    """Cover part of the face with a piece of another picture, or with one colour."""
    import cv2

    side = len(crop)
    size = (rng.uniform(0.1, 0.45, 2) * side).astype(int) + 1
    x, y = (rng.uniform(-0.2, 1.0, 2) * side).astype(int)
    mask = np.zeros((side, side), np.uint8)
    centre = (int(x + size[0] // 2), int(y + size[1] // 2))
    axes = (int(size[0] // 2 + 1), int(size[1] // 2 + 1))
    if rng.uniform() < 0.5:
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    else:
        cv2.rectangle(mask, (int(x), int(y)), (int(x + size[0]), int(y + size[1])), 255, -1)
    if rng.uniform() < 0.5:
        cover = np.full_like(crop, 0) + rng.integers(0, 256, 3, dtype=np.uint8)
    else:
        cover = np.asarray(cv2.resize(other, (side, side)), np.uint8)[::-1]
    return np.where(mask[..., None] > 0, cover, crop)


def photograph(crop: Bytes, rng: np.random.Generator) -> Bytes:
    """Simulate camera and codec: light, colour, blur, lower resolution, noise, compression."""
    import cv2

    side = len(crop)
    x = crop.astype(np.float32) / 255
    if rng.uniform() < 0.8:
        x = x ** np.float32(np.exp(rng.normal(0, 0.3)))
        x = x * (rng.uniform(0.6, 1.25) * rng.normal(1, 0.08, 3)).astype(np.float32) + np.float32(rng.normal(0, 0.06))
    if rng.uniform() < 0.25:
        ramp = np.linspace(-1, 1, side, dtype=np.float32)
        across, down = rng.normal(0, 0.35, 2)
        x = x * (1 + across * ramp[None, :, None] + down * ramp[:, None, None]).clip(0.2, 2)
    if rng.uniform() < 0.1:
        x = np.repeat(x.mean(axis=2, keepdims=True), 3, axis=2)
    x = np.ascontiguousarray(x, np.float32)
    kind = rng.uniform()
    if kind < 0.3:
        x = np.asarray(cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 2.6)))
    elif kind < 0.5:
        small = max(12, int(side * rng.uniform(0.25, 0.9)))
        x = np.asarray(
            cv2.resize(cv2.resize(x, (small, small), interpolation=cv2.INTER_AREA), (side, side)), np.float32
        )
    elif kind < 0.6:  # sharpening, as cameras apply
        x = x + np.float32(rng.uniform(0.2, 1.0)) * (x - cv2.GaussianBlur(x, (0, 0), 1.0))
    if rng.uniform() < 0.4:
        x = x + np.float32(rng.uniform(0.004, 0.06)) * rng.standard_normal(x.shape, np.float32)
    out = (x.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.uniform() < 0.4:
        coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 90))])[1]
        out = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return out


def faceless(picture: Bytes, side: int, rng: np.random.Generator) -> Bytes:
    """A crop uint8[side, side, 3] without a face: plain, noise at some scales, blobs, or a corner of a render."""
    import cv2

    kind = rng.integers(4)
    colour = rng.uniform(0, 255, 3)
    if kind == 0:
        return np.broadcast_to(colour * (rng.uniform() < 0.7), (side, side, 3)).astype(np.uint8)
    if kind == 1:
        x = np.broadcast_to(colour, (side, side, 3)).astype(np.float32)
        for cells in (3, 7, 16, 48):
            grain = rng.standard_normal((cells, cells, 3), np.float32) * rng.uniform(0, 50)
            x = x + cv2.resize(grain, (side, side), interpolation=cv2.INTER_CUBIC)
        return np.asarray(x.clip(0, 255), np.uint8)
    if kind == 2:
        x = np.ascontiguousarray(np.broadcast_to(colour, (side, side, 3)), np.float32)
        for _ in range(rng.integers(2, 12)):
            middle, axes = (
                rng.uniform(0, side, 2).astype(int).tolist(),
                rng.uniform(3, side / 2, 2).astype(int).tolist(),
            )
            turn, tint = float(rng.uniform(0, 180)), rng.uniform(0, 255, 3).tolist()
            x = np.asarray(cv2.ellipse(x, middle, axes, turn, 0, 360, tint, -1), np.float32)
        return np.asarray(cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 5)), np.uint8)
    part = int(len(picture) * rng.uniform(0.12, 0.2))  # the corners show only backdrop, hair and shoulders
    rows = slice(None, part) if rng.uniform() < 0.5 else slice(-part, None)
    columns = slice(None, part) if rng.uniform() < 0.5 else slice(-part, None)
    return np.asarray(cv2.resize(np.ascontiguousarray(picture[rows, columns]), (side, side)), np.uint8)


def _shuffled(crop: Bytes, rng: np.random.Generator) -> Bytes:
    """The crop cut into shuffled squares: the texture of skin and hair without a face."""
    cells = int(rng.integers(3, 7))
    edge = len(crop) // cells
    cut = crop[: edge * cells, : edge * cells].reshape(cells, edge, cells, edge, 3).transpose(0, 2, 1, 3, 4)
    mixed = rng.permutation(cut.reshape(-1, edge, edge, 3)).reshape(cut.shape)
    out = crop.copy()
    out[: edge * cells, : edge * cells] = mixed.transpose(0, 2, 1, 3, 4).reshape(edge * cells, edge * cells, 3)
    return out
