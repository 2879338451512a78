"""The extension `pose_correction` at inference: the rotation by which the landmarks of a clip are turned."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.registry import load_registry
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench_bcd.extensions.landmark_motion import EXTRACTOR
from bcd_bench_bcd.extensions.pose_correction import PoseCorrection

__all__ = ["PoseCorrector", "mean_turn", "pose_corrector"]

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
READ: Final = "face-mesh"
"""The fit to the landmarks that are read."""
SECOND: Final = "face-mesh-mediapipe"
"""The fit to those of the second detector."""


class PoseCorrector:
    """Clips -> rotations from the pose of their dense landmarks to a better one, by loaded extractors."""

    def __init__(self, extractors: Mapping[str, tuple[Any, tuple[str, ...]]]) -> None:
        """`extractors` are loaded ones by name, except `dense-landmarks`, with the names of those whose features they
        need, which come first."""
        self._extractors = extractors

    def turn(self, frames: Frames, read: Mapping[str, Any], settings: PoseCorrection) -> Tensor:
        """The rotation float32 [3, 3] for a clip uint8 [T, H, W, 3] with the features `read` of `dense-landmarks`, in
        the axes of the head: x right, y down, z away.

        The identity if the head model does not fit one of the two kinds of landmarks.
        """
        chosen = np.linspace(0, len(frames) - 1, min(settings.frames, len(frames))).round().astype(int)
        clip = Clip(np.ascontiguousarray(frames[chosen]), 25.0, "clip")
        features: dict[str, list[Any]] = {EXTRACTOR: [{name: values[chosen] for name, values in read.items()}]}
        for name, (extractor, needed) in self._extractors.items():
            given = [{one: features[one] for one in needed}] if needed else []
            features[name] = extractor.extract([clip], *given)
            if isinstance(features[name][0], Failed):
                return torch.eye(3)
        before, after = (np.asarray(features[name][0]["rotation"], np.float64) for name in (READ, SECOND))
        return torch.from_numpy(mean_turn(before, after, settings)).float()


def mean_turn(read: Floats, second: Floats, settings: PoseCorrection) -> Floats:
    """The correction float64 [3, 3] for rotations [T, 3, 3] of two fits, NaN in frames without one.

    With R the rotations `read` and S those of the `second` detector, it is the median over the frames of the rotation
    vector of R^T S, times the share of `settings`. The identity if no frame has both.
    """
    from scipy.spatial.transform import Rotation

    both = np.isfinite(read).all((1, 2)) & np.isfinite(second).all((1, 2))
    if not both.any():
        return np.eye(3)
    between = Rotation.from_matrix(read[both].transpose(0, 2, 1) @ second[both]).as_rotvec(degrees=True)
    vector = np.median(between, axis=0) * settings.share
    vector = vector.clip(-settings.limit, settings.limit)
    return np.asarray(Rotation.from_rotvec(vector, degrees=True).as_matrix(), np.float64)


@lru_cache(maxsize=1)
def pose_corrector() -> PoseCorrector:
    """The corrector of this process.

    Raises `UsageError` if an extractor is not installed, and `MissingAssetError` if one lacks its model.
    """
    registry = load_registry()
    store = AssetStore(registry)
    loaded: dict[str, tuple[Any, tuple[str, ...]]] = {}
    try:
        specs = needed_extractors(registry, (READ, SECOND))
    except UsageError as error:
        raise UsageError(f"these weights correct head poses: {error}", hint="install bcd-bench-faces") from None
    for spec in specs:
        if spec.name == EXTRACTOR:
            continue
        for asset in spec.assets:
            store.find(asset)
        extractor = load_factory(spec.factory)()
        extractor.load("cpu")
        loaded[spec.name] = (extractor, spec.extractors)
    return PoseCorrector(loaded)
