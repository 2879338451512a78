"""The extractor `dense-landmarks`: dense landmarks by our own network, whose weights are in this package."""

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
"""Bump when cropping, passes, gates or input change the results for the same weights."""


class DenseLandmarks:
    """Clip -> arrays with one row per frame; frames are processed independently.

    - `points` float32[T, N, 2]: x and y in pixels of the frame; NaN without a face
    - `sigma` float32[T, N]: the predicted standard deviation along an axis, in pixels; NaN without a face
    - `coefficients` float32[T, K + E]: predicted identity and expression coefficients, as in `HeadModel`; NaN without a
      face
    - `face` float32[T] in 0..1: probability of a face; 0 without
    """

    def __init__(self) -> None:
        self._landmarker: DenseLandmarker | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The weights, the library that runs them, and the version of the preprocessing."""
        from bcd_bench_faces.dense_landmarks.detector import network_sha256

        return {"weights": network_sha256(), "torch": version("torch").split("+")[0], "looks": LOOKS_VERSION}

    def load(self, device: str) -> None:
        """Load the network; it runs on the CPU, one frame at a time."""
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
        certainty = np.zeros(count, np.float32)
        for index, frame in enumerate(clip.frames):
            face = self._landmarker.detect(frame)
            if face is not None:
                points[index], sigma[index], certainty[index] = face.points, face.sigma, face.certainty
                coefficients[index] = face.coefficients
        return {"points": points, "sigma": sigma, "coefficients": coefficients, "face": certainty}
