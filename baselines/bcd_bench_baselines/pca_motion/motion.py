"""The algebra of landmarks: a face apart from its pose, and a driver's expression as a linear model of few numbers.

All coordinates are those of images: x to the right, y down, z away from the camera, in pixels unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Mode", "Moved", "Track", "best_frame", "linear_model", "retarget"]

Floats = npt.NDArray[np.float64]
Mode = Literal["absolute", "relative"]

STABLE = (10, 151, 9, 8, 168, 6, 197, 195, 33, 133, 362, 263, 127, 356, 234, 454, 21, 251)
"""Points of MediaPipe's mesh that expressions hardly move: forehead, nose bridge, eye corners, temples."""
BLINKS = (9, 10)
"""Blendshapes eyeBlinkLeft and eyeBlinkRight."""
FLIP = np.diag([1.0, -1.0, -1.0])
"""MediaPipe's camera has y up and z towards the viewer."""
BLINK_DEGREES = 60.0
"""What closed eyes of a source frame count beside the angle to the driver's head: lids cannot be warped open."""
RIDGE = 0.02
"""Weight of the ridge penalty a frame in the regression on blendshapes (which lie in 0..1)."""


@dataclass(frozen=True)
class Track:
    """The face of a clip, frame by frame, as the extractor `mediapipe-landmarks` gives it, apart from its pose.

    Frames without a face are filled with the nearest frame that has one; `seen` says which have.
    """

    points: Floats
    """float64[T, N, 3] in pixels"""
    shape: Floats
    """float64[T, N, 3]: turned to the front, centred, of mean square 1 over the stable points"""
    rotation: Floats
    """float64[T, 3, 3]"""
    centre: Floats
    """float64[T, 3] in pixels"""
    scale: Floats
    """float64[T] in pixels"""
    blendshapes: Floats
    """float64[T, 52] in 0..1"""
    seen: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, features: Mapping[str, Any]) -> Track:
        """Raises ValueError where no frame has a face."""
        points = np.asarray(features["points"], np.float64)
        seen = np.isfinite(points).all((1, 2))
        if not seen.any():
            raise ValueError(f"no face in any of {len(points)} frames")
        known = np.flatnonzero(seen)
        nearest = known[np.abs(np.arange(len(points))[:, None] - known).argmin(1)]
        points = points[nearest]
        rotation = FLIP @ np.asarray(features["rotation"], np.float64)[nearest] @ FLIP
        centre = points[:, STABLE].mean(1)
        upright = (points - centre[:, None]) @ rotation
        scale = np.sqrt((upright[:, STABLE] ** 2).sum(-1).mean(-1))
        blendshapes = np.asarray(features["blendshapes"], np.float64)[nearest]
        return cls(points, upright / scale[:, None, None], rotation, centre, scale, blendshapes, seen)

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Moved:
    """A face that was given the motion of a driver of T frames."""

    points: Floats
    """float64[T, N, 3] in pixels"""
    shape: Floats
    """float64[T, N, 3], as `Track.shape`"""
    rotation: Floats
    """float64[T, 3, 3]"""
    scale: Floats
    """float64[T] in pixels"""


def best_frame(content: Track, driver: Track) -> int:
    """The content frame to warp: seen, turned as the driver mostly is, with open eyes; the first of equals."""
    u, _, vt = np.linalg.svd(driver.rotation.mean(0))
    mean = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    cosine = (np.einsum("tij,ij->t", content.rotation, mean) - 1) / 2
    cost = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    cost += BLINK_DEGREES * content.blendshapes[:, BLINKS].mean(1)
    cost[~content.seen] = np.inf
    return int(cost.argmin())


def linear_model(driver: Track, components: int) -> tuple[Floats, Floats, Floats]:
    """A linear PCA of the driver's shapes: mean float64[D], basis float64[K, D] (orthonormal), scores float64[T, K].

    D is 3 N, and K at most `components` and T - 1.
    """
    flat = driver.shape.reshape(len(driver), -1)
    mean = flat.mean(0)
    u, s, vt = np.linalg.svd(flat - mean, full_matrices=False)
    kept = min(components, len(flat) - 1)
    return mean, vt[:kept], u[:, :kept] * s[:kept]


def retarget(content: Track, frame: int, driver: Track, *, mode: Mode, components: int, gain: float) -> Moved:
    """Where the landmarks of a content frame go, frame by frame of the driver.

    The content's own shape, changed as the driver's changes, in the driver's pose. The change is measured in the
    driver's linear model. With `mode` "absolute" it counts from what the driver would look like with the expression
    of the content frame (a ridge regression of the scores on blendshapes, within what the driver shows), and rotation,
    place and size are those of the driver; with "relative" everything counts from the driver's first frame.
    """
    _, basis, scores = linear_model(driver, components)
    if mode == "absolute":
        reference = _scores_at(driver, scores, content.blendshapes[frame])
        rotation, centre, scale = driver.rotation, driver.centre, driver.scale
    else:
        reference = scores[0]
        rotation = driver.rotation @ driver.rotation[0].T @ content.rotation[frame]
        grown = driver.scale / driver.scale[0]
        zoom = content.scale[frame] / driver.scale[0]
        centre, scale = content.centre[frame] + zoom * (driver.centre - driver.centre[0]), content.scale[frame] * grown
    change = ((scores - reference) @ basis).reshape(len(driver), -1, 3)
    shape = content.shape[frame] + gain * change
    points = centre[:, None] + scale[:, None, None] * (shape @ rotation.transpose(0, 2, 1))
    return Moved(points, shape, rotation, scale)


def _scores_at(driver: Track, scores: Floats, blendshapes: Floats) -> Floats:
    """The scores float64[K] that the driver would have with these blendshapes float64[52]."""
    mean = driver.blendshapes.mean(0)
    inputs = driver.blendshapes - mean
    gram = inputs @ inputs.T + RIDGE * len(inputs) * np.eye(len(inputs))
    predicted = (blendshapes - mean) @ inputs.T @ np.linalg.solve(gram, scores)
    return np.asarray(np.clip(predicted, scores.min(0), scores.max(0)))
