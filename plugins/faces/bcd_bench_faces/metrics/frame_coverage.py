"""The number of frames in which a metric requires a face, and the fraction of frames that its value is based on.

The fraction counts the frames in which the driving clip has a face: it is not the method's error if the driving clip
looks away or shows nobody for a while. Output faces in such frames may still contribute to a mean.
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
_NAMES = {"motion": "driving", "target": "target"}


def enough(seen: int, frames: int) -> bool:
    """Whether at least half of a clip's frames are available."""
    return seen > 0 and 2 * seen >= frames


def share_of_frames(output: npt.NDArray[np.bool_], driver: npt.NDArray[np.bool_] | None = None) -> float:
    """Percent of the frames with a face in `driver` that have one in `output` as well.

    If there is no usable driving clip (None, a different length, or no face in it): percent of all output frames.
    """
    if driver is None or len(driver) != len(output) or not driver.any():
        return 100.0 * float(output.mean())
    return 100.0 * float(output[driver].mean())


def frames_column(name: str) -> Column:
    """The column `<name>-frames`, to be referenced as `frames` by the column `name`."""
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
    item: Scored, feature: str, extractor: str = LANDMARKS, reference: str = "motion"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float] | Failed:
    """A feature of an extractor of output and driving clip (or target, by `reference`) in the frames in which both have
    a face, and the share of frames as in `share_of_frames`; `Failed` if both have a face in fewer than half of all."""
    pair_features: list[npt.NDArray[np.float64]] = []
    for role in ("output", reference):
        features: Any = item.features[extractor][role]
        if isinstance(features, Failed):
            return features
        pair_features.append(np.asarray(features[feature], np.float64))
    output, driver = pair_features
    if len(output) != len(driver):
        return Failed(f"the output has {len(output)} frames, its {_NAMES[reference]} clip {len(driver)}")
    has_face = [np.asarray(np.isfinite(rows.reshape(len(rows), -1)).all(1)) for rows in pair_features]
    both = has_face[0] & has_face[1]
    if not enough(int(both.sum()), len(both)):
        counts = [int(seen.sum()) for seen in (*has_face, both)]
        return Failed(
            f"{counts[0]} of {len(both)} output frames and {counts[1]} {_NAMES[reference]} frames show a face, "
            f"{counts[2]} of them in common: fewer than half"
        )
    return output[both], driver[both], share_of_frames(*has_face)


class AgainstDriver(PairMetric):
    """A metric that compares one feature of an extractor of output and driving clip, frame by frame."""

    extractor: ClassVar[str] = LANDMARKS
    feature: ClassVar[str]
    column: ClassVar[Column]

    def __init__(self) -> None:
        self._frames = frames_column(self.column.name)
        self.columns: Sequence[Column] = (replace(self.column, frames=self._frames.name), self._frames)

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` if fewer than half of the frames have a face in output and driving clip."""
        return [self._row(item) for item in items]

    @abstractmethod
    def values(self, output: npt.NDArray[np.float64], driver: npt.NDArray[np.float64]) -> Mapping[str, float]:
        """Column -> value for the feature in the frames in which both have a face."""

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        comparison = against_driver(item, self.feature, self.extractor)
        if isinstance(comparison, Failed):
            return comparison
        output, driver, share = comparison
        return {**self.values(output, driver), self._frames.name: share}
