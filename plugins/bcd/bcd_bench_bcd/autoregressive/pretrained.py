"""The motion models shipped in this package. Separate from the model, so that torch is not imported."""

from __future__ import annotations

from pathlib import Path

from bcd_bench import Weights
from bcd_bench_bcd.inference.pretrained import SHIPPED

__all__ = ["SHIPPED_MOTION", "motion_model_for"]

SHIPPED_MOTION: tuple[Weights, ...] = tuple(
    Weights(
        name=name,
        suites=suites,
        package="bcd_bench_bcd",
        path=f"weights/motion-{name}.safetensors",
        sha256=sha256,
    )
    for name, suites, sha256 in (
        (
            "sprites-procedural-small",
            ("sprites-procedural-generate", "sprites-procedural-generate-prompt3"),
            "abfeebcf1454250a698bfafa41fa81522d7334bd1470cb2282ae8c63519cdd27",
        ),
        (
            "sprites-small",
            ("sprites-generate", "sprites-generate-prompt3"),
            "aefcd82474de78118148c14f2ce0ef50c69b184e639ee1ad2c25f659405e1dae",
        ),
        (
            "heads-small",
            ("heads-generate", "heads-generate-prompt5"),
            "7890154b5f38f3b0d5be4233cc61deea73b8db20c6f19ea026695b7645486d76",
        ),
    )
)
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
