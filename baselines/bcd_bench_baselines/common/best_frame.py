"""Select the driving frame closest to the source's pose, by 68 facial landmarks, as FOMM's `find_best_frame` option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.types.pair import Pair
from bcd_bench_baselines.common.landmarks import POINTS_68, FacePoints, NoFaceError

__all__ = ["FrameChooser", "closest_frame", "identify"]

Points = npt.NDArray[np.float64]


class FrameChooser:
    """Finds the frame by the points of `landmarks.FacePoints`; raises the same errors."""

    def __init__(self) -> None:
        self.points = FacePoints()

    def choose(self, source: npt.NDArray[np.uint8], driving: npt.NDArray[np.uint8]) -> int:
        """The index of the driving frame uint8[T, H, W, 3] closest to the source uint8[H, W, 3].

        Raises `NoFaceError` if the source or every driving frame has no face.
        """
        [source_points], driving_points = (
            self.points.of(frames)[:, list(POINTS_68)] for frames in (source[None], driving)
        )
        return closest_frame(source_points, driving_points)


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The configuration for the run's fingerprint (`MethodSpec.identify`): with `best_frame`, including the
    landmarks."""
    del pairs
    if not config.get("best_frame"):
        return dict(config)
    return {**config, "landmarks": FacePoints().identity}


def closest_frame(source: Points, driving: Points) -> int:
    """Index of the driving frame [T, N, 2] whose points are closest to the source's [N, 2], both centred and divided by
    the square root of their hull's area; the first of equals. Frames with NaN are skipped. Raises `NoFaceError` if all
    are."""
    target = _normalised(source)
    distances = [
        np.inf if np.isnan(points).any() else float(((_normalised(points) - target) ** 2).sum()) for points in driving
    ]
    best = int(np.argmin(distances))
    if not np.isfinite(distances[best]):
        raise NoFaceError("no face was found in any driving frame")
    return best


def _normalised(points: Points) -> Points:
    from scipy.spatial import ConvexHull

    centred = points - points.mean(0)
    scaled: Points = centred / np.sqrt(ConvexHull(centred).volume)
    return scaled
