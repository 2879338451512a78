"""In how many frames a metric must have seen a face."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.clips import Failed
from bcd_bench.specs import Scored

__all__ = ["against_driver", "enough"]

LANDMARKS = "face-landmarks"


def enough(seen: int, frames: int) -> bool:
    """Whether a clip's value rests on at least half of its frames."""
    return seen > 0 and 2 * seen >= frames


def against_driver(item: Scored, feature: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int] | Failed:
    """A feature of `face-landmarks` of output and driver in the frames in which both have a face, and the number of
    all frames; `Failed` where that is fewer than half of them."""
    found: list[npt.NDArray[np.float64]] = []
    for role in ("output", "motion"):
        features: Any = item.features[LANDMARKS][role]
        if isinstance(features, Failed):
            return features
        found.append(np.asarray(features[feature], np.float64))
    output, driver = found
    if len(output) != len(driver):
        return Failed(f"the output has {len(output)} frames, its driver {len(driver)}")
    seen = [np.isfinite(rows.reshape(len(rows), -1)).all(1) for rows in found]
    both = seen[0] & seen[1]
    if not enough(int(both.sum()), len(both)):
        return Failed(
            f"a face in {seen[0].sum()} of {len(both)} output frames and {seen[1].sum()} driver frames, "
            f"{both.sum()} of them the same: fewer than half"
        )
    return output[both], driver[both], len(both)
