"""The extractor `mediapipe-landmarks`: one pass of the landmarker over a clip, for every metric that looks at faces."""

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
    """Clip -> arrays, a row a frame, of the largest face in each; every frame is looked at on its own.

    - `points` float32[T, 478, 3]: x and y in pixels of the frame, z on the scale of x; NaN without a face
    - `blendshapes` float32[T, 52] in 0..1, in the order of `landmarker.BLENDSHAPES`; NaN without a face
    - `rotation` float32[T, 3, 3]: head rotation, orthonormal; NaN without a face
    - `faces` int64[T]: how many faces were seen, 2 for two or more
    """

    def __init__(self) -> None:
        self._landmarker: FaceLandmarker | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model, the library that runs it, and how frames come in."""
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
            found = self._landmarker.detect(frame)
            faces[index] = len(found)
            if found:
                points[index], blendshapes[index] = found[0].points, found[0].blendshapes
                rotation[index] = found[0].rotation
        return {"points": points, "blendshapes": blendshapes, "rotation": rotation, "faces": faces}
