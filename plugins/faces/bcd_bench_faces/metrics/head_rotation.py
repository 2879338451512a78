"""The metric `ard`: the angle between the head rotations of output and driving clip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.specs import Column
from bcd_bench_faces.metrics.frame_coverage import AgainstDriver

__all__ = ["ARD", "angle_between"]


class ARD(AgainstDriver):
    """Average rotation distance (named in the paper's Appendix C, "Discussion")."""

    feature = "rotation"
    column = Column(
        "ard",
        "deg",
        False,
        "Mean over frames of the angle of the rotation between the output's head and the driver's, each as "
        "MediaPipe fits its canonical face to the points of face_landmarker.task (facial transformation matrix).",
    )

    def values(self, output: npt.NDArray[np.float64], driver: npt.NDArray[np.float64]) -> Mapping[str, float]:
        """Mean angle in degrees over rotations [T, 3, 3]."""
        return {"ard": float(angle_between(output, driver).mean())}


def angle_between(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The geodesic distance float64[T] in degrees, 0..180, of rotations [T, 3, 3].

    Uses both sine and cosine, so that small angles keep their precision.
    """
    between = np.swapaxes(a, 1, 2) @ b
    cosine = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    skew = between - np.swapaxes(between, 1, 2)
    sine = np.sqrt(skew[:, 2, 1] ** 2 + skew[:, 0, 2] ** 2 + skew[:, 1, 0] ** 2) / 2
    return np.asarray(np.degrees(np.arctan2(sine, cosine)), np.float64)
