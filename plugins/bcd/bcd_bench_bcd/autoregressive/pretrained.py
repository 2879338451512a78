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
            "600246226879aa5c1deb265960580d153a2a4d66f21e34117f8bffe8cf764244",
        ),
        (
            "sprites-small",
            ("sprites-generate", "sprites-generate-prompt3"),
            "9d0188c8f6f7f002cc60bcac9f6a859157ef702804ed4163a5cd808bfd4d62e8",
        ),
        (
            "heads-small",
            ("heads-generate", "heads-generate-prompt5"),
            "84379095609eeb9f938ec8f77e7ea6f856df0e322594d18075ad8df012982408",
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
