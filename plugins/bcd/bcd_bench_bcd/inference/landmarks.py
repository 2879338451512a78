"""Landmarks of clips for the extension `landmark_motion`, by the extractor `dense-landmarks`."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.landmark_motion import EXTRACTOR

__all__ = ["LandmarkReader", "LandmarkSource", "NoFaceError", "filled", "landmark_reader", "landmark_source"]

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
REMEMBERED = 64
"""Clips whose features are kept: the content of a pair is read twice."""


class NoFaceError(UsageError):
    """None of a clip's frames shows a face."""


class LandmarkReader:
    """Clips -> landmarks, by one loaded extractor."""

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor
        self._known: OrderedDict[bytes, Mapping[str, Any]] = OrderedDict()

    def read(self, frames: Frames) -> Floats:
        """Landmarks float32 [T, N, 2] of a clip uint8 [T, H, W, 3]: x and y in -1..1 from border to border.

        Frames without a face have the landmarks of the nearest frame with one. Raises `NoFaceError` if there is none.
        """
        points = self.features(frames)["points"]
        return filled(points / (np.array(frames.shape[2:0:-1], np.float32) / 2) - 1)

    def features(self, frames: Frames) -> Mapping[str, Any]:
        """All features of the extractor for a clip uint8 [T, H, W, 3]; NaN in frames without a face."""
        key = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).digest() + repr(frames.shape).encode()
        if key not in self._known:
            self._known[key] = self._extractor.extract([Clip(frames, 25.0, "clip")])[0]
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]


def filled(points: npt.NDArray[np.floating]) -> Floats:
    """Points [T, N, 2], in which frames that are NaN get those of the nearest other frame. Raises `NoFaceError` if all
    are."""
    seen = np.flatnonzero(np.isfinite(points).all((1, 2)))
    if not len(seen):
        raise NoFaceError(f"none of {len(points)} frames shows a face, which these weights need")
    nearest = seen[np.abs(np.arange(len(points))[:, None] - seen).argmin(1)]
    return np.asarray(points[nearest], np.float32)


class LandmarkSource(NamedTuple):
    """The landmark network in use."""

    sha256: str
    points: int
    """Landmarks per frame."""


def landmark_source() -> LandmarkSource:
    """The landmark network in use. Raises `UsageError` if the extractor is not installed."""
    extractor = _extractor()
    extractor.load("cpu")
    points = extractor.extract([Clip(np.zeros((1, 32, 32, 3), np.uint8), 25.0, "empty")])[0]["points"]
    return LandmarkSource(str(extractor.identity["weights"]), points.shape[1])


def _extractor() -> Any:
    try:
        spec = load_registry().extractor(EXTRACTOR)
    except UsageError:
        raise UsageError(
            f"these weights read motion from landmarks, and no plugin provides the extractor {EXTRACTOR!r}",
            hint="install bcd-bench-faces",
        ) from None
    return load_factory(spec.factory)()


@lru_cache(maxsize=2)
def landmark_reader(network: str) -> LandmarkReader:
    """The reader of this process, for weights that were trained with the landmark network of this hash.

    Raises `UsageError` if the extractor is not installed or uses another network.
    """
    extractor = _extractor()
    found = str(extractor.identity["weights"])
    if network and found != network:
        raise UsageError(
            f"these weights were trained with the landmark network {network[:12]}, not {found[:12]}",
            hint="unset BCD_BENCH_DENSE_LANDMARKS, or train with it: bcd-bench train bcd-landmarks",
        )
    extractor.load("cpu")
    return LandmarkReader(extractor)
