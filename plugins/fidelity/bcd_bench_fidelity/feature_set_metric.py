"""Common parts of the set metrics: the features of an output and of the real clip it is compared with.

The reference set is the real side of the same pairs: the target clip if the suite has ground truth, else the motion
clip. The paper only names FID, "following previous talking head works"; those compare generated frames with the real
frames of the test clips, which in a cross-identity suite are the driving clips. Every pair adds its reference clip
once, however many pairs share it, so that outputs and references have equal weights and shards merge.
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
"""The reference set, as described in metric definitions."""

ROLES = ("output", "reference")


def reference_role(item: Scored) -> str:
    """Role of the clip of a pair that belongs to the reference set."""
    return "motion" if item.pair.target is None else "target"


def features_of(item: Scored, extractor: str, side: str) -> npt.NDArray[np.float32] | Failed:
    """The features float32[T, D] of one side ("output" or "reference") of an item."""
    role = reference_role(item) if side == "reference" else side
    features: Mapping[str, Any] | Failed = item.features[extractor][role]
    return features if isinstance(features, Failed) else np.asarray(features["features"], dtype=np.float32)


def failure(item: Scored, extractor: str) -> Failed | None:
    """The reason why an item cannot be added to a set, which needs features of both of its clips; None if it can."""
    sides = (features_of(item, extractor, side) for side in ROLES)
    return next((side for side in sides if isinstance(side, Failed)), None)


class FeatureSetMetric(SetMetric):
    """Base of metrics over sets of frame features of one backbone."""

    backbone: ClassVar[Backbone]

    def load(self, device: str) -> None:
        """Check that the weights of the extractor are available; the network itself is loaded by the extractor.

        Raises `MissingAssetError` or `MissingDependencyError` before any clip is processed.
        """
        del device
        self.backbone.weights()

    def refuse(self, item: Scored) -> Failed | None:
        """Exclude an output without features, or without those of its reference, from the set."""
        return failure(item, self.backbone.extractor)
