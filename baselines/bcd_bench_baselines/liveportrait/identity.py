"""What of LivePortrait's settings enters a run's identity; apart, so that planning a run imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bcd_bench.types.pair import Pair
from bcd_bench_baselines.common.landmarks import FacePoints

__all__ = ["identify"]


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The settings (`MethodSpec.identify`), and what finds the face where they use it.

    Raises `UsageError` where nothing does, `MissingAssetError` where it lacks its model.
    """
    del pairs
    if not (config.get("crop") or config.get("normalize_lip")):
        return dict(config)
    return {**config, "landmarks": FacePoints().identity}
