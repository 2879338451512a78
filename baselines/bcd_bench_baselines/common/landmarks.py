"""Face landmarks from the extractor `mediapipe-landmarks`, using the same cache as metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore, cache_folder
from bcd_bench.plugin.registry import load_registry
from bcd_bench.scoring.features import FeatureStore, extractor_assets
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed

__all__ = ["EXTRACTOR", "LIPS", "POINTS_68", "FacePoints", "NoFaceError"]

EXTRACTOR = "mediapipe-landmarks"
_JAW = (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389)
_BROWS = (71, 63, 105, 66, 107, 336, 296, 334, 293, 301)
_NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_MOUTH = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
POINTS_68 = (*_JAW, *_BROWS, *_NOSE, *_EYES, *_MOUTH)
"""The usual 68 points (jaw, brows, nose, eyes, mouth), approximated by the closest of the 478."""
LIPS = (13, 14, 61, 291)
"""The inner edges of the upper and the lower lip, and the corners of the mouth."""


class NoFaceError(ValueError):
    """No face where one is required; the message is the reason of the failed pair."""


class FacePoints:
    """MediaPipe's 478 points for the frames of a clip, for methods whose settings require them.

    Raises `UsageError` if no plugin provides the extractor, `MissingAssetError` if its model is missing.
    """

    def __init__(self) -> None:
        registry = load_registry()
        registry.extractor(EXTRACTOR)
        for asset in extractor_assets(registry, [EXTRACTOR]):
            AssetStore(registry).find(asset)
        self._store = FeatureStore(registry, device="cpu", root=cache_folder() / "features")

    @property
    def identity(self) -> str:
        """Hash of everything that determines the points, except for the frames."""
        return self._store.identity(EXTRACTOR)

    def of(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """uint8[T, H, W, 3] -> float64[T, 478, 2] in pixels, x first; NaN in frames without a face.

        Raises `NoFaceError` if no frame has a face.
        """
        features: Any = self._store.get(EXTRACTOR, [Clip(frames, 25.0)])[0]
        if isinstance(features, Failed):
            raise NoFaceError(features.reason)
        points = np.asarray(features["points"], np.float64)[..., :2]
        if np.isnan(points).any(axis=(1, 2)).all():
            raise NoFaceError("no face was found")
        return points
