"""The metric `ard`: how far the output's head is turned from the driver's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.clips import Failed
from bcd_bench.specs import Column, Scored
from bcd_bench_faces.coverage import against_driver

__all__ = ["ARD", "angle_between"]


class ARD:
    """Average rotation distance (named in the paper's Appendix C, "Discussion")."""

    columns: Sequence[Column] = (
        Column(
            "ard",
            "deg",
            False,
            "Mean over frames of the angle of the rotation between the output's head and the driver's, each as "
            "MediaPipe fits its canonical face to the points of face_landmarker.task (facial transformation matrix).",
        ),
        Column(
            "ard-frames",
            "%",
            True,
            "Share of frames in which output and driver both have a face, which ard rests on.",
            decimals=1,
            headline=False,
        ),
    )

    def load(self, device: str) -> None:
        """Nothing to load: the landmarks hold the rotations."""

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` where fewer than half of the frames have a face in output and driver."""
        return [_score(item) for item in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """No column is derived."""
        del rows
        return {}


def angle_between(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The geodesic distance float64[T] in degrees, 0..180, of rotations [T, 3, 3].

    By both sine and cosine, so that small angles keep their digits.
    """
    between = np.swapaxes(a, 1, 2) @ b
    cosine = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    skew = between - np.swapaxes(between, 1, 2)
    sine = np.sqrt(skew[:, 2, 1] ** 2 + skew[:, 0, 2] ** 2 + skew[:, 1, 0] ** 2) / 2
    return np.asarray(np.degrees(np.arctan2(sine, cosine)), np.float64)


def _score(item: Scored) -> Mapping[str, Any] | Failed:
    found = against_driver(item, "rotation")
    if isinstance(found, Failed):
        return found
    output, driver, frames = found
    return {"ard": float(angle_between(output, driver).mean()), "ard-frames": 100.0 * len(output) / frames}
