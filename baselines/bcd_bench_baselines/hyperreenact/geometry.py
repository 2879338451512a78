"""Crops and alignments of HyperReenact, all based on the 68 landmarks of a face.

Landmarks are float64[68, 2], x and y in pixels, in the order of the 300-W annotations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

__all__ = ["aligned_face", "arcface_affine", "pose_crop", "square_crop"]

Floats = npt.NDArray[np.float64]

SIZE = 256
POSE_SIZE = 224
BLUR = 5.0
"""Standard deviation in pixels of the blur outside the picture."""
TEMPLATE = np.array(
    [[35.343697, 51.6963], [76.453766, 51.5014], [56.029396, 71.7366], [39.14085, 92.3655], [73.18488, 92.2041]]
)
"""Positions of eyes, nose and mouth corners in ArcFace's crops of 112 pixels."""


def square_crop(picture: npt.NDArray[np.uint8], landmarks: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Square crop around a face, uint8[256, 256, 3], of an image uint8[H, W, 3], and the landmarks in it.

    Its side is twice the longer side of the landmarks' box, and its centre a sixth of that side above the box's centre.
    Areas outside the image are mirrored, and blurred and faded with growing distance. Raises ValueError if the face has
    no extent.
    """
    low, high = landmarks.min(0), landmarks.max(0)
    size = int((high - low).max())
    if size < 2:
        raise ValueError("the face has no extent")
    centre = np.rint((low + high) / 2).astype(int)
    centre[1] -= size // 6
    corner = centre - size
    height, width = picture.shape[:2]
    columns = _mirrored(np.arange(corner[0], corner[0] + 2 * size), width)
    rows = _mirrored(np.arange(corner[1], corner[1] + 2 * size), height)
    square = _faded(picture[rows[:, None], columns], np.array([*-corner, *(corner + 2 * size - [width, height])]))
    crop = np.array(Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return crop, (landmarks - corner) * (SIZE / (2 * size))


def _faded(square: npt.NDArray[np.uint8], over: npt.NDArray[np.int_]) -> npt.NDArray[np.uint8]:
    """Blur a square uint8[S, S, 3] where it extends beyond the image by `over` pixels (left, top, right, bottom), and
    fade it to its median colour, as in FFHQ (Karras et al., 2019)."""
    if (over <= 0).all():
        return np.ascontiguousarray(square)
    from scipy.ndimage import gaussian_filter

    steps = np.arange(len(square))
    sides = [
        (over[0], steps[None]),
        (over[1], steps[:, None]),
        (over[2], steps[::-1][None]),
        (over[3], steps[::-1, None]),
    ]
    out = np.full(square.shape[:2], -1.0)
    for width, distance in sides:
        if width > 0:
            out = np.maximum(out, 1 - distance / width)
    pixels = square.astype(np.float32)
    pixels += (gaussian_filter(pixels, (BLUR, BLUR, 0)) - pixels) * np.clip(3 * out + 1, 0, 1)[..., None]
    pixels += (np.median(pixels, (0, 1)) - pixels) * np.clip(out, 0, 1)[..., None]
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)


def _mirrored(index: npt.NDArray[np.int_], count: int) -> npt.NDArray[np.int_]:
    """Reflect indices beyond 0..count-1 at the ends, repeatedly."""
    period = max(1, 2 * (count - 1))
    index = np.abs(index) % period
    return np.where(index >= count, period - index, index)


def arcface_affine(landmarks: Floats) -> Tensor:
    """Matrix float32[1, 2, 3] for `affine_grid` that maps a 256-pixel image to ArcFace's 112-pixel crop."""
    points = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0), *landmarks[[30, 48, 54]]])
    source, target = TEMPLATE - TEMPLATE.mean(0), points - points.mean(0)
    u, s, vt = np.linalg.svd(target.T @ source)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    fit = (s * sign).sum() / (source**2).sum() * (u * sign @ vt)
    shift = points.mean(0) - fit @ TEMPLATE.mean(0)
    linear = fit * (112 / SIZE)
    offset = 2 * shift / SIZE + linear.sum(1) - 1
    return torch.from_numpy(np.concatenate([linear, offset[:, None]], 1)[None]).float()


def aligned_face(picture: Tensor, affine: Tensor) -> Tensor:
    """[1, 3, 256, 256] -> [1, 3, 112, 112] by the matrix of `arcface_affine`."""
    grid = F.affine_grid(affine.to(picture), [len(picture), 3, 112, 112], align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False)


def pose_crop(picture: Tensor, landmarks: Floats) -> Tensor:
    """[1, 3, 256, 256] in 0..255 -> the crop [1, 3, 224, 224] in 0..1 for the pose encoder.

    A square around the landmarks' box, 1.375 times as wide as the mean of its sides; pixel coordinates are
    corner-aligned in the placement of the square and edge-aligned in sampling, as in kornia 0.4.1.
    """
    low, high = landmarks.min(0), landmarks.max(0)
    side = int((high - low).mean() * 1.1 * 1.25)
    left, top = (low + high) / 2 - side / 2
    zoom = side / (POSE_SIZE - 1)
    # from the crop's -1..1 to its pixels 0..223, to pixels of the image, to the image's -1..1
    scale = zoom * (POSE_SIZE - 1) / (SIZE - 1)
    shift_x, shift_y = (2 * (start + side / 2) / (SIZE - 1) - 1 for start in (left, top))
    affine = torch.tensor([[[scale, 0.0, shift_x], [0.0, scale, shift_y]]], dtype=picture.dtype, device=picture.device)
    grid = F.affine_grid(affine, [len(picture), 3, POSE_SIZE, POSE_SIZE], align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False) / 255
