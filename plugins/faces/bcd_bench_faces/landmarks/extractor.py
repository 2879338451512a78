"""The extractor `mediapipe-landmarks`: one pass of the landmarker over a clip, for all metrics that use faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from bcd_bench.types.clip import Clip
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.landmarks.mediapipe import BLENDSHAPES, LONGEST_SIDE, POINTS, FaceLandmarker

__all__ = ["MediaPipeLandmarks"]


class MediaPipeLandmarks:
    """Clip -> arrays, one row per frame, for the largest face in it; frames are processed independently.

    - `points` float32[T, 478, 3]: x and y in pixels of the frame, z on the scale of x; NaN without a face
    - `blendshapes` float32[T, 52] in 0..1, in the order of `landmarker.BLENDSHAPES`; NaN without a face
    - `rotation` float32[T, 3, 3]: head rotation, orthonormal; NaN without a face
    - `faces` int64[T]: number of faces, 2 for two or more
    """

    def __init__(self) -> None:
        self._landmarker: FaceLandmarker | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Cache key: the model, the library that runs it, and the preprocessing."""
        return {
            "weights": FACE_LANDMARKER.sha256,
            "mediapipe": version("mediapipe"),
            "preprocessing": f"RGB, at most {LONGEST_SIDE} px, single images, largest of 2 faces",
        }

    def load(self, device: str) -> None:
        """Load the model; it runs on the CPU. Raises `MissingAssetError`."""
        del device
        self._landmarker = FaceLandmarker()

    def extract(self, clips: Sequence[Clip]) -> list[Mapping[str, Any]]:
        """The arrays of every clip, in order."""
        return [self._clip(clip) for clip in clips]

    def _clip(self, clip: Clip) -> Mapping[str, Any]:
        assert self._landmarker is not None, "load comes before extract"
        count = len(clip)
        points = np.full((count, POINTS, 3), np.nan, np.float32)
        blendshapes = np.full((count, len(BLENDSHAPES)), np.nan, np.float32)
        rotation = np.full((count, 3, 3), np.nan, np.float32)
        faces = np.zeros(count, np.int64)
        for index, frame in enumerate(clip.frames):
            detected = self._landmarker.detect(frame)
            faces[index] = len(detected)
            if detected:
                points[index], blendshapes[index] = detected[0].points, detected[0].blendshapes
                rotation[index] = detected[0].rotation
        return {"points": points, "blendshapes": blendshapes, "rotation": rotation, "faces": faces}
