"""The Bjontegaard rate difference of two rate-distortion curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["bd_rate"]

Point = tuple[float, float]
"""(rate, quality)"""


def bd_rate(reference: Sequence[Point], other: Sequence[Point]) -> float | None:
    """Mean difference in rate, in percent, that `other` needs for the same quality as `reference` (VCEG-M33).

    The logarithm of the rate is interpolated over quality by piecewise cubic Hermite polynomials (PCHIP), and averaged
    over the range of qualities that both curves cover: -50 means half the rate. None if the ranges do not overlap or a
    curve has fewer than two points of different quality. Quality must increase with the rate; points where it does not
    are left out.
    """
    curves = [_increasing(points) for points in (reference, other)]
    if any(len(quality) < 2 for quality, _ in curves):
        return None
    low, high = max(quality[0] for quality, _ in curves), min(quality[-1] for quality, _ in curves)
    if not low < high:
        return None
    from scipy.interpolate import PchipInterpolator

    areas = [float(PchipInterpolator(quality, rate).integrate(low, high)) for quality, rate in curves]
    return float(100 * (10 ** ((areas[1] - areas[0]) / (high - low)) - 1))


def _increasing(points: Sequence[Point]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Qualities and log10 of the rates, sorted by rate, without points whose quality is not above all cheaper ones."""
    kept: list[Point] = []
    for rate, quality in sorted(points):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return np.array([quality for _, quality in kept]), np.log10([rate for rate, _ in kept])
