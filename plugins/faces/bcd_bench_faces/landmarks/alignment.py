"""Upright face crops as in ArcFace's training: five points of a face aligned to five fixed ones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["CROP", "aligned_crop", "dense_five_points", "five_points", "similarity"]

CROP = 112
"""Side of a crop in pixels."""
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Positions of eyes, nose tip and mouth corners in ArcFace's training crops (Deng et al. 2019), image left first."""
EYE_CORNERS = ((33, 133), (362, 263))
NOSE_TIP, MOUTH_CORNERS = 1, (61, 291)
"""Points of MediaPipe's face mesh."""
FIVE_VERTICES = ((15, 64), (1117, 1166), (805,), (1038,), (2075,))
"""Vertices of the head model's face for the same points in dense landmarks: two corners of either eye, nose tip, mouth
corners."""


def five_points(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """float64[5, 2] in pixels from landmarks float32[478, 3]: eye centres, nose tip, mouth corners.

    An eye's centre is the mean of its corners, which does not depend on gaze and blinks.
    """
    flat = points[:, :2].astype(np.float64)
    eyes = [flat[list(corners)].mean(0) for corners in EYE_CORNERS]
    return np.stack([*eyes, flat[NOSE_TIP], *(flat[corner] for corner in MOUTH_CORNERS)])


def dense_five_points(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """float64[5, 2] in pixels from dense landmarks float32[N, 2] of the network in use, as `five_points`."""
    return np.stack([points[list(indices)].astype(np.float64).mean(0) for indices in _dense_places()])


@lru_cache(maxsize=1)
def _dense_places() -> tuple[tuple[int, ...], ...]:
    """Indices of the network's points that are closest, on the mean face, to `FIVE_VERTICES`."""
    from bcd_bench_faces.dense_landmarks.detector import network_vertices
    from bcd_bench_faces.head_model.face_region import load_face_model

    mean, vertices = load_face_model().mean, network_vertices()
    return tuple(
        tuple(int(np.linalg.norm(mean[vertices] - mean[vertex], axis=1).argmin()) for vertex in group)
        for group in FIVE_VERTICES
    )


def similarity(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The scaling, rotation and shift float64[2, 3] that maps points [N, 2] to others with least squares.

    Umeyama's solution in the plane, where it is a division of complex numbers. Raises ValueError if all source points
    coincide.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    spread = float((a**2).sum())
    if spread == 0.0:
        raise ValueError("the points coincide")
    cosine, sine = float((a * b).sum()) / spread, float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / spread
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target.mean(0) - linear @ source.mean(0)])


def aligned_crop(frame: npt.NDArray[np.uint8], five: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Crop uint8[112, 112, 3] of a face with five points float64[5, 2] in a frame uint8[H, W, 3]; black outside."""
    import cv2

    matrix = similarity(five, TEMPLATE)
    return np.asarray(cv2.warpAffine(frame, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR, borderValue=0.0), np.uint8)
