"""The metrics `theval-lips-mediapipe`, `theval-brows-mediapipe` and `theval-head-mediapipe`: how much a face moves.

The definitions are those of THEval (Quignon et al., CVPR 2026): one number per video, compared as a mean over all
videos. THEval uses MediaPipe's earlier Face Mesh for lips and brows, and FaceXFormer with RetinaFace for the head; here
everything comes from `mediapipe-landmarks`, so values are not comparable with its tables.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_faces.metrics.frame_coverage import against_driver, frames_column
from bcd_bench_faces.tddfa.network import angles_of

__all__ = [
    "BrowDynamics",
    "HeadDynamics",
    "LipDynamics",
    "brow_dynamics",
    "head_dynamics",
    "lip_dynamics",
]

Floats = npt.NDArray[np.float64]

SIDE: Final = 256
"""Lip distances are in pixels of frames of this size."""
LIPS: Final = (
    0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270, 291, 308,
    310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415,
)  # fmt: skip
BROWS: Final = (
    (276, 282, 283, 285, 293, 295, 296, 300, 334, 336),
    (46, 52, 53, 55, 63, 65, 66, 70, 105, 107),
)
EYES: Final = (
    (249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466),
    (7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246),
)
"""Points of MediaPipe's face mesh; brows and eyes by side."""


def lip_dynamics(points: Floats, size: tuple[int, int]) -> float:
    """Standard deviation over time of the distance of two lip points, in pixels of a frame of 256 x 256, averaged over
    all pairs of the 40 points; from points [T, 478, 2 or 3] in pixels of frames of `size` (height, width)."""
    lips = points[:, LIPS, :2] * (SIDE / size[1], SIDE / size[0])
    first, second = np.triu_indices(len(LIPS), 1)
    distances = np.linalg.norm(lips[:, first] - lips[:, second], axis=2)
    return float(distances.std(axis=0).mean())


def brow_dynamics(points: Floats) -> float:
    """Mean absolute change from frame to frame of the distance between the centres of brow and eye, in distances of the
    two eyes, over both sides; from points [T, 478, 2 or 3], T at least 2."""
    brows, eyes = (np.stack([points[:, side, :2].mean(axis=1) for side in part], axis=1) for part in (BROWS, EYES))
    scale = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1)
    raised = np.linalg.norm(brows - eyes, axis=2) / scale[:, None]
    return float(np.abs(np.diff(raised, axis=0)).mean())


def head_dynamics(angles: Floats, centre: Floats) -> float:
    """sqrt(s v + c): s the mean standard deviation of the three angles, v the mean variance of their changes from frame
    to frame, c the mean variance of the coordinates of the face's centre; from angles [T, 3] in degrees and `centre`
    [T, 2] in pixels, T at least 2."""
    spread = angles.std(axis=0).mean()
    changes = np.diff(angles, axis=0).var(axis=0).mean()
    return float(np.sqrt(spread * changes + centre.var(axis=0).mean()))


class _Dynamics(PairMetric):
    """The dynamics of output and driving clip, and how close their means over all pairs are."""

    name: ClassVar[str]
    unit: ClassVar[str]
    definition: ClassVar[str]

    def __init__(self) -> None:
        share = frames_column(self.name)
        by = "by MediaPipe's face_landmarker.task, frame by frame"
        self.columns: Sequence[Column] = (
            Column(self.name, self.unit, None, f"{self.definition}, {by}.", decimals=4, frames=share.name),
            Column(
                f"{self.name}-score",
                "",
                True,
                f"1 - |m - g| / g, where m is the mean of {self.name} over all outputs and g that over their driving "
                "clips.",
                kind="derived",
                decimals=3,
                frames=share.name,
            ),
            Column(
                f"{self.name}-driver",
                self.unit,
                None,
                f"{self.name} of the driving clip.",
                decimals=4,
                headline=False,
                frames=share.name,
            ),
            share,
        )

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` if fewer than half of the frames, or fewer than two, have a face in both."""
        return [self._row(item) for item in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """The score of all pairs."""
        output, driver = (float(np.mean([row[name] for row in rows])) for name in (self.name, f"{self.name}-driver"))
        return {f"{self.name}-score": 1 - abs(output - driver) / driver} if driver > 0 else {}

    @abstractmethod
    def measure(self, points: Floats, rotation: Floats, size: tuple[int, int]) -> float:
        """The value for points [T, 478, 3] and rotations [T, 3, 3] in frames of `size`, T at least 2."""

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        points, rotation = against_driver(item, "points"), against_driver(item, "rotation")
        if isinstance(points, Failed):
            return points
        if isinstance(rotation, Failed):
            return rotation
        if len(points[0]) < 2:
            return Failed("one frame shows no motion")
        size = (item.output.frames.shape[1], item.output.frames.shape[2])
        output = self.measure(points[0], rotation[0], size)
        driver = self.measure(points[1], rotation[1], size)
        return {self.name: output, f"{self.name}-driver": driver, f"{self.name}-frames": points[2]}


class LipDynamics(_Dynamics):
    """THEval's lip dynamics."""

    name = "theval-lips-mediapipe"
    unit = "px"
    definition = (
        "Standard deviation over time of the distance of two lip points, averaged over all pairs of 40 points, in "
        "pixels of frames of 256 x 256 (THEval's lip dynamics)"
    )

    def measure(self, points: Floats, rotation: Floats, size: tuple[int, int]) -> float:
        del rotation
        return lip_dynamics(points, size)


class BrowDynamics(_Dynamics):
    """THEval's eyebrow dynamics."""

    name = "theval-brows-mediapipe"
    unit = ""
    definition = (
        "Mean absolute change from frame to frame of the distance of brow and eye, in distances of the two eyes "
        "(THEval's eyebrow dynamics)"
    )

    def measure(self, points: Floats, rotation: Floats, size: tuple[int, int]) -> float:
        del rotation, size
        return brow_dynamics(points)


class HeadDynamics(_Dynamics):
    """THEval's head motion dynamics."""

    name = "theval-head-mediapipe"
    unit = ""
    definition = (
        "sqrt(s v + c): s the mean standard deviation of yaw, pitch and roll in degrees, v the mean variance of their "
        "changes from frame to frame, c the mean variance of the centre of the landmarks' box in pixels (THEval's head "
        "motion dynamics)"
    )

    def measure(self, points: Floats, rotation: Floats, size: tuple[int, int]) -> float:
        del size
        flat = points[:, :, :2]
        return head_dynamics(angles_of(rotation), (flat.min(axis=1) + flat.max(axis=1)) / 2)
