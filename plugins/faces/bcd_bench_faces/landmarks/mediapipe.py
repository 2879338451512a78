"""MediaPipe's face landmarker, frame by frame and without state, so that results do not depend on the order."""

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
from bcd_bench_faces.landmarks.import_mediapipe import import_tasks
from bcd_bench_faces.landmarks.silence_native_logs import without_chatter

__all__ = ["BLENDSHAPES", "LONGEST_SIDE", "POINTS", "Face", "FaceLandmarker"]

POINTS = 478
"""Points of a face: MediaPipe's 468 of the face mesh and 10 of the irises."""
LONGEST_SIDE = 1024
"""Larger frames are reduced to this side (area average) before detection; points are in pixels of the original
frame."""
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
    """float32[478, 3]: x to the right and y down in pixels, z (away from the camera) on the scale of x."""
    blendshapes: npt.NDArray[np.float32]
    """float32[52] in 0..1, in the order of `BLENDSHAPES`."""
    rotation: npt.NDArray[np.float32]
    """float32[3, 3], orthonormal: from MediaPipe's canonical face to its camera, fitted by MediaPipe to the mesh
    points."""


class FaceLandmarker:
    """Detects faces in single frames. Raises `MissingAssetError` if the model is missing."""

    def __init__(self, model: Path | None = None, *, faces: int = 2) -> None:
        """`faces` is the maximum number of faces: with two, a second face can be detected."""
        path = AssetStore(load_registry()).find(FACE_LANDMARKER.name) if model is None else model
        with without_chatter():
            tasks: Any = import_tasks()
            vision = tasks.vision
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=tasks.BaseOptions(model_asset_path=str(path)),
                    running_mode=vision.RunningMode.IMAGE,
                    num_faces=faces,
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                )
            )
            self.detect(np.zeros((64, 64, 3), np.uint8))  # its threads log only once they run
        weakref.finalize(self, _close, self._landmarker)

    def detect(self, frame: npt.NDArray[np.uint8]) -> list[Face]:
        """The faces of a frame uint8[H, W, 3] RGB of any size, the largest first; equal ones in the order of
        detection."""
        import mediapipe

        height, width = frame.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=_bounded(frame))
        result: Any = self._landmarker.detect(image)
        scale = np.array([width, height, width], np.float32)
        faces = []
        for landmarks, shapes, matrix in zip(
            result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True
        ):
            points = np.array([(point.x, point.y, point.z) for point in landmarks], np.float32) * scale
            blendshapes = np.array([shape.score for shape in shapes], np.float32)
            faces.append(Face(points, blendshapes, np.asarray(matrix, np.float32)[:3, :3]))
        return sorted(faces, key=lambda face: -float(np.ptp(face.points[:, :2], axis=0).prod()))


def _bounded(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The frame, contiguous and no larger than `LONGEST_SIDE`, with its aspect ratio kept to the pixel."""
    import cv2

    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        size = [max(1, round(side * LONGEST_SIDE / longest)) for side in (width, height)]
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(frame)


def _close(landmarker: Any) -> None:
    """Free MediaPipe's landmarker. At interpreter exit, MediaPipe's worker thread ends first: nothing can or needs to
    be freed then, and the landmarker is marked as closed so that its own finaliser does nothing."""
    try:
        landmarker.close()
    except RuntimeError:
        landmarker._handle = None
