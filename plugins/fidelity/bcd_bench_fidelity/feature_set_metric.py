"""What the set metrics share: the features of an output and of the real clip it is held against.

The reference set is the real side of the same pairs: the target clip where the suite has the exact answer, else the
motion clip. The paper only names FID, "following previous talking head works"; those compare generated frames with the
real frames of the test clips, which in a cross-identity suite are the drivers. Every pair brings its reference clip
once, however many pairs share it, so that outputs and references stay in step and shards merge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import SetMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.backbones import Backbone

__all__ = ["REFERENCE", "ROLES", "FeatureSetMetric", "failure", "features_of", "reference_role"]

REFERENCE = "the target clips, or the motion clips of pairs without a target"
"""The reference set, in the words of a definition."""

ROLES = ("output", "reference")


def reference_role(item: Scored) -> str:
    """Which clip of a pair belongs to the reference set."""
    return "motion" if item.pair.target is None else "target"


def features_of(item: Scored, extractor: str, side: str) -> npt.NDArray[np.float32] | Failed:
    """The features float32[T, D] of one side ("output" or "reference") of an item."""
    role = reference_role(item) if side == "reference" else side
    found: Mapping[str, Any] | Failed = item.features[extractor][role]
    return found if isinstance(found, Failed) else np.asarray(found["features"], dtype=np.float32)


def failure(item: Scored, extractor: str) -> Failed | None:
    """Why an item cannot enter a set: both of its clips need features."""
    sides = (features_of(item, extractor, side) for side in ROLES)
    return next((side for side in sides if isinstance(side, Failed)), None)


class FeatureSetMetric(SetMetric):
    """A metric over sets of frame features of one backbone: what holds before any feature is looked at."""

    backbone: ClassVar[Backbone]

    def load(self, device: str) -> None:
        """The network belongs to the extractor; here is only seen to it that its weights are to be had.

        Raises `MissingAssetError` or `MissingDependencyError` before any clip is looked at.
        """
        del device
        self.backbone.weights()

    def refuse(self, item: Scored) -> Failed | None:
        """An output without features, or without those of its reference, is missing from the set."""
        return failure(item, self.backbone.extractor)
