"""The fingerprint of LivePortrait's settings; in a separate module, so that planning a run does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bcd_bench.types.pair import Pair
from bcd_bench_baselines.common.landmarks import FacePoints

__all__ = ["identify"]


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The settings (`MethodSpec.identify`), including the face landmarks if the settings use them.

    Raises `UsageError` if no landmark extractor is available, `MissingAssetError` if its model is missing.
    """
    del pairs
    if not (config.get("crop") or config.get("normalize_lip")):
        return dict(config)
    return {**config, "landmarks": FacePoints().identity}
