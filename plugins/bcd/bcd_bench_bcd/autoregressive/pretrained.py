"""The motion models shipped in this package. Separate from the model, so that torch is not imported."""

from __future__ import annotations

from pathlib import Path

from bcd_bench import Weights
from bcd_bench_bcd.inference.pretrained import SHIPPED

__all__ = ["SHIPPED_MOTION", "motion_model_for"]

SHIPPED_MOTION: tuple[Weights, ...] = ()
"""Named as the BCD weights whose codes they generate."""


def motion_model_for(bcd_sha256: str) -> Path | None:
    """The shipped motion model for the codes of the BCD weights with this hash, None if there is none.

    Raises `MissingAssetError` if the file is missing or altered.
    """
    from bcd_bench.assets.weights import verify_weights

    names = {weights.sha256: weights.name for weights in SHIPPED}
    for weights in SHIPPED_MOTION:
        if weights.name == names.get(bcd_sha256):
            return verify_weights(weights, None).path
    return None
