"""Conversion between uint8 frames and network inputs and outputs; resizing as in the original implementations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["resize", "to_uint8", "to_unit"]

Frames = npt.NDArray[np.uint8]


def to_unit(frames: Frames, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """uint8[T, H, W, 3] -> float32[T, 3, *size] in [0, 1], resized (`resize`) if the size differs."""
    pixels = torch.tensor(frames).to(device).permute(0, 3, 1, 2)
    # dividing in float64 and rounding once gives the same result as NumPy's uint8 / 255
    return resize((pixels.double() / 255).float(), size).contiguous()


def to_uint8(values: Tensor, size: tuple[int, int]) -> Frames:
    """Floats [T, 3, h, w] in [0, 1] -> uint8[T, *size, 3], rounded to the nearest; values outside are clipped."""
    pixels = resize(values.float(), size).mul(255).round().clamp(0, 255).to(torch.uint8)
    frames: Frames = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return frames


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Floats [..., H, W] -> [..., *size]: bilinear at pixel centres; an axis that shrinks is smoothed first.

    Equivalent to skimage's `resize` of order 1 with its defaults: a Gaussian of sigma (factor - 1) / 2 cut at 4 sigma,
    and mirrored borders. Since it is linear and separable, it is computed as one matrix per axis.
    """
    for axis, new_length in ((-2, size[0]), (-1, size[1])):
        have = images.shape[axis]
        if have != new_length:
            matrix = torch.from_numpy(_resizing(have, new_length)).to(images)
            images = (images.transpose(axis, -1) @ matrix.T).transpose(axis, -1)
    return images


@lru_cache(maxsize=64)
def _resizing(have: int, wanted: int) -> npt.NDArray[np.float64]:
    """Matrix [wanted, have]: smoothing (if it shrinks), then linear interpolation."""
    factor = have / wanted
    positions = np.clip((np.arange(wanted) + 0.5) * factor - 0.5, -(have - 1), 2 * (have - 1))
    low = np.floor(positions).astype(np.int64)
    part = positions - low
    linear = np.zeros((wanted, have))
    rows = np.arange(wanted)
    np.add.at(linear, (rows, _mirrored(low, have)), 1 - part)
    np.add.at(linear, (rows, _mirrored(low + 1, have)), part)
    sigma = (factor - 1) / 2
    if sigma <= 0:
        return linear
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    smooth = np.zeros((have, have))
    rows = np.arange(have)
    for offset, weight in zip(offsets, kernel, strict=True):
        np.add.at(smooth, (rows, _mirrored(rows + offset, have)), weight)
    matrix: npt.NDArray[np.float64] = linear @ smooth
    return matrix


def _mirrored(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Reflect indices outside 0..length-1 about the first and last sample, which are not repeated."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)
