"""PSNR, SSIM and differences of consecutive frames, on pixel arrays."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["PSNR_CAP", "SSIM_WINDOW", "psnr", "ssim", "temporal_differences"]

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

PSNR_CAP = 60.0
"""PSNR in dB of an output that equals its target, and the maximum for any output: an error of 0.26 grey levels."""

SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels, as in Wang et al. (2004)."""
_SIGMA = 1.5
_PEAK = 255.0
_C1 = (0.01 * _PEAK) ** 2
_C2 = (0.03 * _PEAK) ** 2


def psnr(output: Frames, target: Frames) -> float:
    """10 log10(255^2 / MSE) in dB, at most `PSNR_CAP`; the MSE is over all of two uint8[T, H, W, 3] of equal shape."""
    total = 0
    for output_frame, target_frame in zip(output, target, strict=True):  # frame by frame, to save memory
        difference = output_frame.astype(np.int64) - target_frame
        total += int(np.vdot(difference, difference))
    if total == 0:
        return PSNR_CAP
    return min(10 * math.log10(_PEAK**2 * output.size / total), PSNR_CAP)


def ssim(output: Frames, target: Frames) -> float:
    """Mean structural similarity in [-1, 1] of two uint8[T, H, W, 3] of equal shape, H and W at least `SSIM_WINDOW`.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    2004: Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, population moments, and only
    windows entirely within the picture. The original index is for one grey picture; here it is computed per colour
    channel and averaged over channels and frames.
    """
    return float(np.mean([_ssim_of_frame(a, b) for a, b in zip(output, target, strict=True)]))


def temporal_differences(frames: Frames) -> Floats:
    """Mean absolute difference of each frame to the previous one, in grey levels: float64[T - 1] of uint8[T, H, W,
    3]."""
    steps = [np.abs(later.astype(np.int16) - former).mean() for former, later in pairwise(frames)]
    return np.array(steps, dtype=np.float64)


def _ssim_of_frame(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    x, y = one.astype(np.float64), other.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x * mean_x
    variance_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return float((luminance * structure).mean())


def _blur(picture: Floats) -> Floats:
    """Gaussian-weighted means of the windows within float64[H, W, 3]: [H - 10, W - 10, 3]."""
    from scipy.ndimage import correlate1d

    half = SSIM_WINDOW // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    rows = correlate1d(picture, weights, axis=0)[half:-half]
    blurred: Floats = correlate1d(rows, weights, axis=1)[:, half:-half]
    return blurred
