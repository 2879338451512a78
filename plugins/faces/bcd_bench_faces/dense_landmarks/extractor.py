"""The extractor `dense-landmarks`: dense landmarks of our own network, which needs no file beyond this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from bcd_bench.types.clip import Clip

if TYPE_CHECKING:
    from bcd_bench_faces.dense_landmarks.detector import DenseLandmarker

__all__ = ["DenseLandmarks"]

LOOKS_VERSION = 4
"""Raised when another crop, other looks, another gate or another input make other numbers of the same weights."""


class DenseLandmarks:
    """Clip -> arrays, a row a frame; every frame is looked at on its own.

    - `points` float32[T, N, 2]: x and y in pixels of the frame; NaN without a face
    - `sigma` float32[T, N]: the deviation that the network expects along an axis, in pixels; NaN without a face
    - `coefficients` float32[T, K + E]: identity and expression that the network tells, as `HeadModel` has them; NaN
      without a face
    - `face` float32[T] in 0..1: how certain it is of there being a face; 0 without
    """

    def __init__(self) -> None:
        self._landmarker: DenseLandmarker | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The weights, what runs them, and how frames come in."""
        from bcd_bench_faces.dense_landmarks.detector import network_sha256

        return {"weights": network_sha256(), "torch": version("torch").split("+")[0], "looks": LOOKS_VERSION}

    def load(self, device: str) -> None:
        """Load the network; it runs on the CPU, a frame at a time."""
        del device
        from bcd_bench_faces.dense_landmarks.detector import DenseLandmarker

        self._landmarker = DenseLandmarker()

    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any]]:
        """The arrays of every clip, in order."""
        return [self._clip(clip) for clip in clips]

    def _clip(self, clip: Clip) -> Mapping[str, Any]:
        assert self._landmarker is not None, "load comes before extract"
        count, points_count = len(clip), len(self._landmarker.vertices)
        points = np.full((count, points_count, 2), np.nan, np.float32)
        sigma = np.full((count, points_count), np.nan, np.float32)
        coefficients = np.full((count, self._landmarker.coefficient_count), np.nan, np.float32)
        certain = np.zeros(count, np.float32)
        for index, frame in enumerate(clip.frames):
            found = self._landmarker.detect(frame)
            if found is not None:
                points[index], sigma[index], certain[index] = found.points, found.sigma, found.certainty
                coefficients[index] = found.coefficients
        return {"points": points, "sigma": sigma, "coefficients": coefficients, "face": certain}
