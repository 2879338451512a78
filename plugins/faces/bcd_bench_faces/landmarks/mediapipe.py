"""MediaPipe's face landmarker, one frame at a time and without memory, so that no result depends on order."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.registry import load_registry
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.landmarks.silence_native_logs import without_chatter

__all__ = ["BLENDSHAPES", "LONGEST_SIDE", "POINTS", "Face", "FaceLandmarker"]

POINTS = 478
"""Points of a face: MediaPipe's 468 of the face mesh and 10 of the irises."""
LONGEST_SIDE = 1024
"""Larger frames are made this small (area average) before detection; points come back in pixels of the frame."""
BLENDSHAPES: tuple[str, ...] = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""The names of `Face.blendshapes`, in order."""


@dataclass(frozen=True)
class Face:
    """One face in one frame."""

    points: npt.NDArray[np.float32]
    """float32[478, 3]: x to the right and y down in pixels, z (towards the back) on the scale of x."""
    blendshapes: npt.NDArray[np.float32]
    """float32[52] in 0..1, by the names in `BLENDSHAPES`."""
    rotation: npt.NDArray[np.float32]
    """float32[3, 3], orthonormal: from MediaPipe's canonical face to its camera, by its fit of the mesh's points."""


class FaceLandmarker:
    """Finds faces in single frames. Raises `MissingAssetError` where the model is not to be found."""

    def __init__(self, model: Path | None = None, *, faces: int = 2) -> None:
        """`faces` bounds how many are looked for: with two, a second face can be told."""
        path = AssetStore(load_registry()).find(FACE_LANDMARKER.name) if model is None else model
        with without_chatter():
            from mediapipe.tasks.python import BaseOptions, vision

            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_path=str(path)),
                    running_mode=vision.RunningMode.IMAGE,
                    num_faces=faces,
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                )
            )
            self.detect(np.zeros((64, 64, 3), np.uint8))  # its threads are only heard at work
        weakref.finalize(self, _close, self._landmarker)

    def detect(self, frame: npt.NDArray[np.uint8]) -> list[Face]:
        """The faces of a frame uint8[H, W, 3] RGB of any size, the largest first; equal ones as they were found."""
        import mediapipe

        height, width = frame.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=_bounded(frame))
        result: Any = self._landmarker.detect(image)
        scale = np.array([width, height, width], np.float32)
        found = []
        for landmarks, shapes, matrix in zip(
            result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True
        ):
            points = np.array([(point.x, point.y, point.z) for point in landmarks], np.float32) * scale
            blendshapes = np.array([shape.score for shape in shapes], np.float32)
            found.append(Face(points, blendshapes, np.asarray(matrix, np.float32)[:3, :3]))
        return sorted(found, key=lambda face: -float(np.ptp(face.points[:, :2], axis=0).prod()))


def _bounded(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The frame, contiguous and no larger than `LONGEST_SIDE`, with its proportions kept to the pixel."""
    import cv2

    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        size = [max(1, round(side * LONGEST_SIDE / longest)) for side in (width, height)]
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(frame)


def _close(landmarker: Any) -> None:
    """Free MediaPipe's landmarker. As the interpreter ends it takes MediaPipe's worker thread first: nothing can be
    freed then, nor need it be, and the landmarker is marked as closed so that its own finaliser does not try."""
    try:
        landmarker.close()
    except RuntimeError:
        landmarker._handle = None
