"""MediaPipe's face landmarker, one frame at a time and without memory, so that no result depends on order."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets import AssetStore
from bcd_bench.plugins import load_registry
from bcd_bench_faces.assets import FACE_LANDMARKER

__all__ = ["POINTS", "Face", "FaceLandmarker"]

POINTS = 478
"""Points of a face: MediaPipe's 468 of the face mesh and 10 of the irises."""


@dataclass(frozen=True)
class Face:
    """One face in one frame."""

    points: npt.NDArray[np.float32]
    """float32[478, 3]: x to the right and y down in pixels, z (towards the back) on the scale of x."""
    blendshapes: npt.NDArray[np.float32]
    """float32[52] in 0..1, by the names in `FaceLandmarker.blendshape_names`."""


class FaceLandmarker:
    """Finds faces in single frames. Raises `MissingAssetError` where the model is not to be found."""

    def __init__(self, model: Path | None = None, *, faces: int = 2) -> None:
        """`faces` bounds how many are looked for: with two, a second face can be told."""
        from mediapipe.tasks.python import BaseOptions, vision

        path = AssetStore(load_registry()).find(FACE_LANDMARKER.name) if model is None else model
        self.blendshape_names: tuple[str, ...] = ()
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(path)),
                running_mode=vision.RunningMode.IMAGE,
                num_faces=faces,
                output_face_blendshapes=True,
            )
        )
        # Closed before the interpreter takes MediaPipe's modules apart: its own finaliser comes too late and complains.
        weakref.finalize(self, self._landmarker.close)

    def detect(self, frame: npt.NDArray[np.uint8]) -> list[Face]:
        """The faces of a frame uint8[H, W, 3] RGB, the largest first."""
        import mediapipe

        height, width = frame.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
        result: Any = self._landmarker.detect(image)
        scale = np.array([width, height, width], np.float32)
        found = []
        for landmarks, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            points = np.array([(point.x, point.y, point.z) for point in landmarks], np.float32) * scale
            self.blendshape_names = tuple(shape.category_name for shape in shapes)
            found.append(Face(points, np.array([shape.score for shape in shapes], np.float32)))
        return sorted(found, key=lambda face: -float(np.ptp(face.points[:, :2], axis=0).prod()))
