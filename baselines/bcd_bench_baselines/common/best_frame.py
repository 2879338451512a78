"""Which driving frame shows the pose of the source best, by 68 facial landmarks, as FOMM's option of that name asks."""

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
    """Finds the frame by the points of `landmarks.FacePoints`; raises as that does."""

    def __init__(self) -> None:
        self.points = FacePoints()

    def choose(self, source: npt.NDArray[np.uint8], driving: npt.NDArray[np.uint8]) -> int:
        """The index of the driving frame uint8[T, H, W, 3] closest to the source uint8[H, W, 3].

        Raises `NoFaceError` where the source or every driving frame has no face.
        """
        [wanted], found = (self.points.of(frames)[:, list(POINTS_68)] for frames in (source[None], driving))
        return closest_frame(wanted, found)


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The configuration as a run's identity has it (`MethodSpec.identify`): with `best_frame`, the landmarks too."""
    del pairs
    if not config.get("best_frame"):
        return dict(config)
    return {**config, "landmarks": FacePoints().identity}


def closest_frame(source: Points, driving: Points) -> int:
    """Of driving points [T, N, 2] the frame nearest to the source's [N, 2], each about its mean and over the root of
    its hull's area; the first among equals. Frames with a NaN are passed over. Raises `NoFaceError` where all are."""
    wanted = _normalised(source)
    distances = [
        np.inf if np.isnan(points).any() else float(((_normalised(points) - wanted) ** 2).sum()) for points in driving
    ]
    best = int(np.argmin(distances))
    if not np.isfinite(distances[best]):
        raise NoFaceError("no face is found in any driving frame")
    return best


def _normalised(points: Points) -> Points:
    from scipy.spatial import ConvexHull

    centred = points - points.mean(0)
    scaled: Points = centred / np.sqrt(ConvexHull(centred).volume)
    return scaled
