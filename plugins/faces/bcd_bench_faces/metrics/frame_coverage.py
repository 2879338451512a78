"""In how many frames a metric must have seen a face, and on which share of the frames its value rests.

The share counts the frames in which the driver has a face: that a driver looks away, or shows nobody for a while, is no
fault of the method. What the output shows there may still enter a mean.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed

__all__ = ["AgainstDriver", "against_driver", "enough", "frames_column", "share_of_frames"]

LANDMARKS = "mediapipe-landmarks"


def enough(seen: int, frames: int) -> bool:
    """Whether a clip's value rests on at least half of its frames."""
    return seen > 0 and 2 * seen >= frames


def share_of_frames(output: npt.NDArray[np.bool_], driver: npt.NDArray[np.bool_] | None = None) -> float:
    """Percent of the frames in which `driver` has a face in which `output` has one as well.

    Without a driver to go by (None, one of another length, or one without any face): of all frames of the output.
    """
    if driver is None or len(driver) != len(output) or not driver.any():
        return 100.0 * float(output.mean())
    return 100.0 * float(output[driver].mean())


def frames_column(name: str) -> Column:
    """The column `<name>-frames`, which the column `name` has to name as its `frames`."""
    return Column(
        f"{name}-frames",
        "%",
        True,
        f"Share of the frames that {name} rests on: of those in which the driver has a face, those in which the output "
        "has one as well.",
        decimals=1,
        headline=False,
    )


def against_driver(
    item: Scored, feature: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float] | Failed:
    """A feature of `mediapipe-landmarks` of output and driver in the frames in which both have a face, and the share of
    frames as `share_of_frames` has it; `Failed` where both have a face in fewer than half of all frames."""
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
    return output[both], driver[both], share_of_frames(*seen)


class AgainstDriver(PairMetric):
    """A metric that compares one feature of `mediapipe-landmarks` of output and driver, frame by frame."""

    feature: ClassVar[str]
    column: ClassVar[Column]

    def __init__(self) -> None:
        self._frames = frames_column(self.column.name)
        self.columns: Sequence[Column] = (replace(self.column, frames=self._frames.name), self._frames)

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` where fewer than half of the frames have a face in output and driver."""
        return [self._row(item) for item in items]

    @abstractmethod
    def compare(self, output: npt.NDArray[np.float64], driver: npt.NDArray[np.float64]) -> float:
        """The value of `column` for the feature in the frames in which both have a face."""

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        found = against_driver(item, self.feature)
        if isinstance(found, Failed):
            return found
        output, driver, share = found
        return {self.column.name: self.compare(output, driver), self._frames.name: share}
