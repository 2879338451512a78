"""Landmark algebra: a face separated from its pose, and a driving clip's expression as a low-dimensional linear model.

All coordinates are image coordinates: x to the right, y down, z away from the camera, in pixels unless stated
otherwise.
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
"""Points of MediaPipe's mesh that hardly move with expressions: forehead, nose bridge, eye corners, temples."""
BLINKS = (9, 10)
"""Blendshapes eyeBlinkLeft and eyeBlinkRight."""
FLIP = np.diag([1.0, -1.0, -1.0])
"""MediaPipe's camera has y up and z towards the viewer."""
BLINK_DEGREES = 60.0
"""Cost in degrees of closed eyes in a source frame, added to the angle to the driving head: lids cannot be warped
open."""
RIDGE = 0.02
"""Weight per frame of the ridge penalty in the regression on blendshapes (which are in 0..1)."""


@dataclass(frozen=True)
class Track:
    """The face of a clip, frame by frame, from the extractor `mediapipe-landmarks`, separated from its pose.

    Frames without a face are filled with the nearest frame that has one; `seen` marks frames with a face.
    """

    points: Floats
    """float64[T, N, 3] in pixels"""
    shape: Floats
    """float64[T, N, 3]: rotated to the front, centred, with mean square 1 over the stable points"""
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
        """Build a track from features. Raises ValueError if no frame has a face."""
        points = np.asarray(features["points"], np.float64)
        seen = np.asarray(np.isfinite(points).all((1, 2)))
        if not seen.any():
            raise ValueError(f"none of {len(points)} frames shows a face")
        with_face = np.flatnonzero(seen)
        nearest = with_face[np.abs(np.arange(len(points))[:, None] - with_face).argmin(1)]
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
    """A face with the motion of a driving clip of T frames."""

    points: Floats
    """float64[T, N, 3] in pixels"""
    shape: Floats
    """float64[T, N, 3], as `Track.shape`"""
    rotation: Floats
    """float64[T, 3, 3]"""
    scale: Floats
    """float64[T] in pixels"""


def best_frame(content: Track, driver: Track) -> int:
    """The content frame to warp: with a face, in about the mean driving pose, and with open eyes; the first of
    equals."""
    u, _, vt = np.linalg.svd(driver.rotation.mean(0))
    mean = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    cosine = (np.einsum("tij,ij->t", content.rotation, mean) - 1) / 2
    cost = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    cost += BLINK_DEGREES * content.blendshapes[:, BLINKS].mean(1)
    cost[~content.seen] = np.inf
    return int(cost.argmin())


def linear_model(driver: Track, components: int) -> tuple[Floats, Floats, Floats]:
    """A linear PCA of the driving shapes: mean float64[D], basis float64[K, D] (orthonormal), scores float64[T, K].

    D is 3 N, and K at most `components` and T - 1.
    """
    flat = driver.shape.reshape(len(driver), -1)
    mean = flat.mean(0)
    u, s, vt = np.linalg.svd(flat - mean, full_matrices=False)
    count = min(components, len(flat) - 1)
    return mean, vt[:count], u[:, :count] * s[:count]


def retarget(content: Track, frame: int, driver: Track, *, mode: Mode, components: int, gain: float) -> Moved:
    """Target landmarks of a content frame, for every driving frame.

    They are the content's shape, changed like the driving shape, in the driving pose. The change is measured in the
    linear model of the driving clip. With `mode` "absolute" it is relative to the driving face with the expression of
    the content frame (a ridge regression of the scores on blendshapes, within the range of the driving clip), and
    rotation, position and size are those of the driving clip; with "relative" everything is relative to the first
    driving frame.
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
    """The scores float64[K] of the driving face with these blendshapes float64[52]."""
    mean = driver.blendshapes.mean(0)
    inputs = driver.blendshapes - mean
    gram = inputs @ inputs.T + RIDGE * len(inputs) * np.eye(len(inputs))
    predicted = (blendshapes - mean) @ inputs.T @ np.linalg.solve(gram, scores)
    return np.asarray(np.clip(predicted, scores.min(0), scores.max(0)))
